// Plain-text tables for a terminal of 80 columns.
//
//   GROUP  ADDRESS       WEIGHT  STATE      SHARE
//   blue   10.77.2.2:80       1  healthy    33.3%
//
// Cells of columns marked `shrinks` are cut, with "…" as their end, until a row fits the width asked for, the widest first;
// other cells are never cut. Control characters become "?": a probe's answer must not reach the terminal as commands.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lb::cli {

inline constexpr std::size_t kTableColumns = 80;
inline constexpr std::size_t kUnlimited = static_cast<std::size_t>(-1);

enum class Colour : unsigned char { none, good, warning, bad, faint };

struct Cell {
  Cell(std::string cell_text, Colour cell_colour = Colour::none) : text(std::move(cell_text)), colour(cell_colour) {}
  Cell(const char* cell_text) : text(cell_text) {}
  std::string text;
  Colour colour = Colour::none;
};

struct Column {
  std::string title;
  bool right = false;  // numbers
  bool shrinks = false;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<Cell> row);  // as many cells as there are columns
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  // Lines, each with its newline and no trailing blanks. max_columns: of the widest line; kUnlimited for -o wide.
  [[nodiscard]] std::string render(std::size_t max_columns, bool colours) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

std::size_t display_width(std::string_view utf8);                     // code points
std::string shorten(std::string_view utf8, std::size_t max_columns);  // ends in "…" when cut
std::string printable(std::string_view text);                         // control characters as "?"
std::string paint(std::string_view text, Colour colour, bool colours);
// Lines of at most `columns`, each starting with `indent` blanks; breaks at blanks only.
std::string wrap(std::string_view text, std::size_t columns, std::size_t indent);

}  // namespace lb::cli
