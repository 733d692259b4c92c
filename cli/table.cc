#include "cli/table.h"

#include <algorithm>

namespace lb::cli {

namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kSmallestShrunk = 6;

bool continues(char c) {
  return (static_cast<unsigned char>(c) & 0xc0U) == 0x80U;
}

std::string_view escape(Colour colour) {
  switch (colour) {
    case Colour::none: return "";
    case Colour::good: return "\x1b[32m";
    case Colour::warning: return "\x1b[33m";
    case Colour::bad: return "\x1b[31m";
    case Colour::faint: return "\x1b[2m";
  }
  return "";
}

void append_cell(std::string& line, const Cell& cell, std::size_t width, bool right, bool last, bool colours) {
  const std::string text = shorten(printable(cell.text), width);
  const std::string padding(width - display_width(text), ' ');
  if (right) line += padding;
  line += paint(text, cell.colour, colours);
  if (!right && !last) line += padding;
}

}  // namespace

std::size_t display_width(std::string_view utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return !continues(c); }));
}

std::string shorten(std::string_view utf8, std::size_t max_columns) {
  if (display_width(utf8) <= max_columns) return std::string(utf8);
  if (max_columns == 0) return {};
  std::size_t end = 0;
  for (std::size_t columns = 0; columns + 1 < max_columns; ++columns) {
    do {
      ++end;
    } while (end < utf8.size() && continues(utf8[end]));
  }
  return std::string(utf8.substr(0, end)) + "…";
}

std::string printable(std::string_view text) {
  std::string out(text);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return out;
}

std::string paint(std::string_view text, Colour colour, bool colours) {
  if (!colours || colour == Colour::none || text.empty()) return std::string(text);
  return std::string(escape(colour)) + std::string(text) + "\x1b[0m";
}

std::string wrap(std::string_view text, std::size_t columns, std::size_t indent) {
  std::string out;
  std::string line(indent, ' ');
  bool empty = true;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    if (!empty && display_width(line) + 1 + display_width(word) > columns) {
      out += line + '\n';
      line.assign(indent, ' ');
      empty = true;
    }
    if (!empty) line += ' ';
    line += printable(word);
    empty = false;
  }
  if (!empty) out += line + '\n';
  return out;
}

void Table::add(std::vector<Cell> row) {
  rows_.push_back(std::move(row));
}

std::string Table::render(std::size_t max_columns, bool colours) const {
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i].text));
  }
  const auto total = [&] {
    std::size_t sum = kGap * (widths.size() - 1);
    for (const std::size_t width : widths) sum += width;
    return sum;
  };
  while (total() > max_columns) {
    std::size_t widest = columns_.size();
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].shrinks && widths[i] > kSmallestShrunk && (widest == columns_.size() || widths[i] > widths[widest])) {
        widest = i;
      }
    }
    if (widest == columns_.size()) break;
    --widths[widest];
  }
  std::string out;
  const auto append_line = [&](const auto& cell_of) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i != 0) line.append(kGap, ' ');
      append_cell(line, cell_of(i), widths[i], columns_[i].right, i + 1 == columns_.size(), colours);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  append_line([&](std::size_t i) { return Cell(columns_[i].title, Colour::faint); });
  for (const auto& row : rows_) append_line([&](std::size_t i) { return row[i]; });
  return out;
}

}  // namespace lb::cli
