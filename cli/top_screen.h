// The screen of `lbctl top`: lists that are sorted by a column of the operator's choice, drawn by curses.
//
//   lb top  2026-11-21 16:20:01Z
//   LISTENER  PACKETS/S↓  BITS/S …          Tab: another list   ←→: sort by another column   r: the other way round
//   web-80         12345   99.1M …          ↑↓: further rows    space: stand still           q: end
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cli/table.h"

namespace lb::cli {

struct TopList {
  struct Row {
    std::vector<Cell> cells;
    std::vector<double> keys;  // of each column; columns of text (not `right`) are sorted by the text
  };
  std::vector<Column> columns;
  std::vector<Row> rows;
  std::size_t sorted = 1;  // column
  bool reversed = false;   // numbers: the smallest first; texts: the last first
};

void sort(TopList& list);
// At most `most` rows from row `first` on, below the titles.
std::string render(const TopList& list, std::size_t first, std::size_t most, std::size_t columns, bool colours);

// One at a time; of the process's own terminal.
class TopScreen {
 public:
  static std::unique_ptr<TopScreen> open();  // null: curses does not know this terminal
  ~TopScreen();                              // gives the terminal back as it was
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;

  // Draws `lists` below `words`, then takes keys for `time`. False: the operator wants to leave.
  bool show(const std::string& words, std::vector<TopList> lists, std::chrono::milliseconds time);
  void close();

 private:
  struct View {  // what the operator chose for one list
    std::size_t sorted = 0;
    bool chosen = false;  // else the list's own
    bool reversed = false;
    std::size_t first = 0;  // row
  };
  TopScreen() = default;
  void draw(const std::string& words, const std::vector<TopList>& lists);
  bool take_key(int key, const std::vector<TopList>& lists);

  std::vector<View> views_;
  std::size_t list_ = 0;  // that keys are for
  bool still_ = false;
  std::string words_;  // while it stands still: of then
  std::vector<TopList> lists_;
  void* terminal_ = nullptr;  // curses' SCREEN
};

}  // namespace lb::cli
