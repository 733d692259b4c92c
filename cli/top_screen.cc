#include "cli/top_screen.h"

#include <ncurses.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <utility>

namespace lb::cli {

namespace {

constexpr const char* kKeys = "Tab list  ←→ sort  r reverse  ↑↓ rows  space stand still  q end";

// Rows for each list of `sizes` rows on a screen that has room for `lines` lines, titles and gaps included: to each the
// same, and what one does not need to the others.
std::vector<std::size_t> shares(const std::vector<std::size_t>& sizes, std::size_t lines) {
  std::vector<std::size_t> rows(sizes.size(), 0);
  std::size_t left = lines > 2 * sizes.size() ? lines - 2 * sizes.size() : 0;
  for (bool grown = true; left > 0 && grown;) {
    grown = false;
    for (std::size_t i = 0; i < sizes.size() && left > 0; ++i) {
      if (rows[i] >= sizes[i]) continue;
      ++rows[i];
      --left;
      grown = true;
    }
  }
  return rows;
}

}  // namespace

void sort(TopList& list) {
  const std::size_t by = std::min(list.sorted, list.columns.size() - 1);
  const bool number = list.columns[by].right;
  std::ranges::stable_sort(list.rows, [&](const TopList::Row& a, const TopList::Row& b) {
    const TopList::Row& first = list.reversed ? b : a;
    const TopList::Row& second = list.reversed ? a : b;
    return number ? first.keys[by] > second.keys[by] : first.cells[by].text < second.cells[by].text;
  });
}

std::string render(const TopList& list, std::size_t first, std::size_t most, std::size_t columns, bool colours) {
  Table table(list.columns);
  for (std::size_t i = first; i < list.rows.size() && i - first < most; ++i) table.add(list.rows[i].cells);
  return table.render(columns, colours);
}

std::unique_ptr<TopScreen> TopScreen::open() {
  std::setlocale(LC_CTYPE, "C.UTF-8");  // what lbctl writes is UTF-8
  SCREEN* const terminal = newterm(nullptr, stdout, stdin);
  if (terminal == nullptr) return nullptr;
  std::unique_ptr<TopScreen> screen(new TopScreen);
  screen->terminal_ = terminal;
  set_term(terminal);
  cbreak();
  noecho();
  keypad(stdscr, TRUE);
  curs_set(0);
  return screen;
}

TopScreen::~TopScreen() {
  close();
}

void TopScreen::close() {
  if (terminal_ == nullptr) return;
  endwin();
  delscreen(static_cast<SCREEN*>(std::exchange(terminal_, nullptr)));
}

bool TopScreen::show(const std::string& words, std::vector<TopList> lists, std::chrono::milliseconds time) {
  views_.resize(std::max(views_.size(), lists.size()));
  if (!still_) {
    words_ = words;
    lists_ = std::move(lists);
  }
  const auto until = std::chrono::steady_clock::now() + time;
  for (;;) {
    draw(words_, lists_);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    timeout(static_cast<int>(left.count()));
    const int key = getch();
    if (key == ERR) return true;  // the time is over
    if (!take_key(key, lists_)) return false;
  }
}

bool TopScreen::take_key(int key, const std::vector<TopList>& lists) {
  if (key == 'q' || key == 'Q') return false;
  if (key == ' ') still_ = !still_;
  if (lists.empty()) return true;
  if (key == '\t') list_ = (list_ + 1) % lists.size();
  const TopList& list = lists[list_];
  View& view = views_[list_];
  if (!view.chosen) view.sorted = list.sorted;
  const std::size_t page = static_cast<std::size_t>(std::max(LINES / 3, 1));
  const std::size_t last = list.rows.empty() ? 0 : list.rows.size() - 1;
  switch (key) {
    case KEY_LEFT:
    case KEY_RIGHT:
      view.sorted = (view.sorted + (key == KEY_RIGHT ? 1 : list.columns.size() - 1)) % list.columns.size();
      view.chosen = true;
      view.reversed = false;
      break;
    case 'r': view.reversed = !view.reversed; break;
    case KEY_DOWN: view.first = std::min(view.first + 1, last); break;
    case KEY_NPAGE: view.first = std::min(view.first + page, last); break;
    case KEY_UP: view.first -= std::min<std::size_t>(view.first, 1); break;
    case KEY_PPAGE: view.first -= std::min(view.first, page); break;
    case KEY_HOME: view.first = 0; break;
    default: break;
  }
  return true;
}

void TopScreen::draw(const std::string& words, const std::vector<TopList>& lists) {
  erase();
  const auto columns = static_cast<std::size_t>(std::max(COLS, 1));
  const auto put = [&](int line, const std::string& text, attr_t look) {
    attrset(look);
    mvaddstr(line, 0, shorten(printable(text), columns).c_str());
    attrset(A_NORMAL);
  };
  put(0, "lb top  " + words + (still_ ? "  (stands still)" : ""), A_BOLD);
  std::vector<std::size_t> sizes;
  for (const TopList& list : lists) sizes.push_back(list.rows.size());
  const std::vector<std::size_t> rows = shares(sizes, static_cast<std::size_t>(std::max(LINES - 2, 0)));
  int line = 2;
  for (std::size_t i = 0; i < lists.size(); ++i) {
    TopList list = lists[i];
    const View& view = views_[i];
    if (view.chosen) list.sorted = view.sorted;
    list.reversed = view.reversed;
    sort(list);
    list.columns[list.sorted].title += list.reversed ? "↑" : "↓";
    const std::string text = render(list, view.first, rows[i], columns, false);
    attr_t look = i == list_ ? A_REVERSE : A_UNDERLINE;
    for (std::size_t at = 0; at < text.size() && line < LINES - 1; look = A_NORMAL) {
      const std::size_t end = text.find('\n', at);
      put(line++, text.substr(at, end - at), look);
      at = end + 1;
    }
    ++line;
  }
  put(LINES - 1, kKeys, A_DIM);
  refresh();
}

}  // namespace lb::cli
