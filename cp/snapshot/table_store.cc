#include "cp/snapshot/table_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <thread>
#include <utility>

#include "cp/snapshot/segment_bytes.h"

namespace lb::cp {
namespace {

// Small enough that a change copies little, large enough that 1,000 groups need some 60 descriptors.
constexpr std::uint64_t kBatchBytes = 2U << 20;
constexpr unsigned kMostThreads = 8;

std::uint64_t table_bytes(const TableRecipe& recipe) {
  return aligned(std::uint64_t{recipe.slot_count} * sizeof(std::uint16_t));
}

}  // namespace

// Who goes into which batch, for the batches that differ from what is there.
std::vector<TableStore::Work> TableStore::plan(const std::vector<std::shared_ptr<const TableRecipe>>& recipes,
                                               std::uint64_t fleet_seed, std::uint64_t epoch) {
  struct Members {
    std::vector<Item> items;
    std::uint64_t bytes = 0;
    bool dirty = false;
  };
  std::map<std::uint32_t, Members> members;
  for (const auto& [number, tables] : batches_) members[number];
  std::vector<std::shared_ptr<const TableRecipe>> homeless;
  for (const auto& recipe : recipes) {
    const auto known = known_.find(recipe->group);
    if (known == known_.end() || known->second.table->recipe->slot_count != recipe->slot_count) {
      homeless.push_back(recipe);
      continue;
    }
    const TableRecipe& before = *known->second.table->recipe;
    Members& batch = members[known->second.batch];
    const bool right = fleet_seed == fleet_seed_ && (&before == recipe.get() || before.targets == recipe->targets);
    batch.items.push_back({recipe, right ? known->second.table : nullptr});
    batch.bytes += table_bytes(*recipe);
    batch.dirty |= !right;
  }

  auto at = members.begin();  // never goes back: what did not fit before is full enough
  for (const auto& recipe : homeless) {
    while (at != members.end() && !at->second.items.empty() && at->second.bytes + table_bytes(*recipe) > kBatchBytes) ++at;
    if (at == members.end()) at = members.try_emplace(next_batch_++).first;
    at->second.items.push_back({recipe, nullptr});
    at->second.bytes += table_bytes(*recipe);
    at->second.dirty = true;
  }

  std::vector<Work> work;
  for (auto& [number, batch] : members) {
    const auto old = batches_.find(number);
    if (!batch.dirty && old != batches_.end() && old->second.size() == batch.items.size()) continue;
    work.push_back({number, epoch << 32 | next_segment_++, std::move(batch.items), {}, {}});
  }
  return work;
}

void TableStore::build(Work& work, std::uint64_t fleet_seed, std::vector<std::byte>& bytes) {
  if (work.items.empty()) return;
  std::uint64_t size = sizeof(abi::SegmentHeader);
  for (const Item& item : work.items) size += table_bytes(*item.recipe);
  bytes.assign(size, std::byte{});

  std::vector<std::shared_ptr<Table>> made;
  std::uint64_t offset = sizeof(abi::SegmentHeader);
  for (const Item& item : work.items) {
    const std::uint32_t slot_count = item.recipe->slot_count;
    auto table = std::make_shared<Table>();
    const std::span slots(reinterpret_cast<std::uint16_t*>(bytes.data() + offset), slot_count);
    if (item.kept != nullptr) {
      std::memcpy(slots.data(), item.kept->memory->bytes().data() + item.kept->offset, slots.size_bytes());
      table->hash = item.kept->hash;
    } else {
      build_maglev(item.recipe->targets, fleet_seed, slots);
      table->hash = maglev_hash(item.recipe->targets, slots);
    }
    table->offset = offset;
    offset += table_bytes(*item.recipe);
    table->recipe = item.recipe;
    made.push_back(std::move(table));
  }
  write_segment_header(bytes, abi::SegmentKind::groups, work.segment_id);
  auto memory = seal(bytes, work.segment_id);
  if (!memory) {
    work.error = memory.error();
    return;
  }
  for (const auto& table : made) table->memory = *memory;
  work.made.assign(made.begin(), made.end());
}

void TableStore::build_all(std::vector<Work>& work, std::uint64_t fleet_seed) {
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    std::vector<std::byte> bytes;  // one for all: fresh memory would cost as much as what is written there
    for (std::size_t i = next++; i < work.size(); i = next++) build(work[i], fleet_seed, bytes);
  };
  const std::size_t threads =
      std::min<std::size_t>({work.size(), std::max(1U, std::thread::hardware_concurrency()), kMostThreads});
  std::vector<std::jthread> helpers;
  for (std::size_t i = 1; i < threads; ++i) helpers.emplace_back(run);
  run();
}

tl::expected<TableStore::Result, std::string> TableStore::update(
    const std::vector<std::shared_ptr<const TableRecipe>>& recipes, std::uint64_t fleet_seed, std::uint64_t epoch) {
  std::vector<Work> work = plan(recipes, fleet_seed, epoch);
  build_all(work, fleet_seed);
  for (const Work& batch : work) {
    if (!batch.error.empty()) return tl::unexpected(batch.error);
  }

  // Nothing fails from here on.
  Result result;
  fleet_seed_ = fleet_seed;
  for (Work& batch : work) {
    for (const Item& item : batch.items) result.tables_built += item.kept == nullptr;
    if (batch.made.empty()) {
      batches_.erase(batch.batch);
    } else {
      batches_[batch.batch] = std::move(batch.made);
    }
  }
  known_.clear();
  std::unordered_map<std::uint32_t, std::uint32_t> index_of;
  for (const auto& [number, tables] : batches_) {
    index_of[number] = static_cast<std::uint32_t>(result.segments.size());
    result.segments.push_back(tables.front()->memory);
    for (const auto& table : tables) known_[table->recipe->group] = {number, table};
  }
  for (const auto& recipe : recipes) {
    const Known& known = known_.at(recipe->group);
    result.places.push_back({index_of[known.batch], known.table->offset, known.table->hash});
  }
  return result;
}

}  // namespace lb::cp
