// The Maglev tables of all groups, grouped into sealed segments that generations share.
//
//   batches   0: segment 17  [blue][green][web]      one table a group, each on a cache line of its own
//             1: segment  2  [dns][…]                about 2 MiB a batch; a larger table has one to itself
//
// A group stays in its batch while its table's size does. update() finds the tables that are no longer right, builds them,
// copies their neighbours and seals new segments for the batches touched; nothing else is looked at twice.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tl/expected.hpp>
#include <unordered_map>
#include <vector>

#include "cp/snapshot/compile.h"
#include "cp/snapshot/maglev.h"

namespace lb::cp {

// What a group's table is made from.
struct TableRecipe {
  std::string group;
  std::uint32_t slot_count = 0;
  std::vector<MaglevTarget> targets;  // sorted, not empty
};

// Where it is.
struct TablePlace {
  std::uint32_t segment = 0;  // index into segments()
  std::uint64_t offset = 0;   // bytes into it
  std::uint64_t hash = 0;     // maglev_hash
};

class TableStore {
 public:
  struct Result {
    std::vector<TablePlace> places;  // same order as the recipes
    std::vector<std::shared_ptr<const SegmentMemory>> segments;
    std::uint32_t tables_built = 0;
  };

  // Recipes of groups without a target are left out. `epoch` goes into the ids of new segments. Error: the operating system
  // has no memory or descriptor left; nothing has changed then.
  tl::expected<Result, std::string> update(const std::vector<std::shared_ptr<const TableRecipe>>& recipes,
                                           std::uint64_t fleet_seed, std::uint64_t epoch);

 private:
  struct Table {
    std::shared_ptr<const TableRecipe> recipe;
    std::uint64_t offset = 0;
    std::uint64_t hash = 0;
    std::shared_ptr<const SegmentMemory> memory;  // where the slots are
  };
  using Tables = std::vector<std::shared_ptr<const Table>>;
  struct Known {
    std::uint32_t batch = 0;
    std::shared_ptr<const Table> table;
  };
  // One table of a batch to come: kept as it is, or to be built.
  struct Item {
    std::shared_ptr<const TableRecipe> recipe;
    std::shared_ptr<const Table> kept;
  };
  struct Work {
    std::uint32_t batch = 0;
    std::uint64_t segment_id = 0;
    std::vector<Item> items;
    Tables made;  // same order as items
    std::string error;
  };

  std::vector<Work> plan(const std::vector<std::shared_ptr<const TableRecipe>>& recipes, std::uint64_t fleet_seed,
                         std::uint64_t epoch);
  static void build(Work& work, std::uint64_t fleet_seed, std::vector<std::byte>& bytes);
  static void build_all(std::vector<Work>& work, std::uint64_t fleet_seed);

  std::map<std::uint32_t, Tables> batches_;  // none is empty
  std::unordered_map<std::string, Known> known_;
  std::uint64_t fleet_seed_ = 0;
  std::uint32_t next_batch_ = 0;
  std::uint64_t next_segment_ = 1;
};

}  // namespace lb::cp
