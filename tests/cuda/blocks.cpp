// Runs grids: the blocks one after another, the threads of a block as fibers that take turns.
//
// A thread runs until it waits: at a barrier until all threads of its block wait at the same one, at a shuffle until
// all lanes of its mask do. When nobody can go on the launch fails and says who waits where. CUDA lets threads that
// have ended be missing at a barrier; here that is a failure, too.
//
// For ThreadSanitizer, barriers order the memory accesses of those that meet; shuffles do not, as in CUDA; and blocks
// of one launch are not ordered at all, so two that write the same number are a race.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
unsigned char* shared_memory;

namespace harness {
namespace {

constexpr int kMostThreads = 1024, kMostWarps = kMostThreads / warpSize;
constexpr size_t kSharedUnasked = 48 * 1024, kMostShared = 227 * 1024;  // of sm_90 and sm_100

enum class State { kRunnable, kAtBlockBarrier, kAtExchange, kEnded };

struct Thread {
  Fiber* fiber;
  State state;
  Place place;  // where it waits
  unsigned mask;
  int source;
  uint64_t given, received;
};

// What threads meet at, as two addresses that take turns: one that is through may already be waiting at the next.
struct Meeting {
  uint64_t turn[2];
};
struct BlockMeetings {
  uint64_t start;
  Meeting block, warps[kMostWarps];
};

// Plain arrays: code of the standard library could be the instrumented copy of another file.
Thread threads[kMostThreads];
int num_threads, live, current, at_block_barrier;
int block_turn, warp_turns[kMostWarps];
BlockMeetings* meetings;
uint64_t launch_end;
Fiber* scheduler;
void (*grid_body)(void*);
void* grid_state;
bool failed;
char failure[1024];

template <class... Arguments>
void fail(const char* format, Arguments... arguments) {
  if (!failed) std::snprintf(failure, sizeof(failure), format, arguments...);
  failed = true;
}

const char* basename_of(const char* path) {
  const char* name = path;
  for (; *path; ++path)
    if (*path == '/') name = path + 1;
  return name;
}

// Not strcmp: the sanitizers watch what it reads, which takes longer than all the rest.
bool same(const char* a, const char* b) {
  if (a == b) return true;
  for (; *a && *a == *b; ++a) ++b;
  return *a == *b;
}
bool same(const Place& a, const Place& b) { return a.line == b.line && same(a.what, b.what) && same(a.file, b.file); }

// Lets the others run. After the last time, and after a failure, the host goes on.
void wait(State state) {
  Thread& self = threads[current];
  self.state = state;
  if (state == State::kEnded) release(&launch_end);
  self.fiber->switch_to(*scheduler);
  if (!failed) return;
  release(&launch_end);
  threads[current].fiber->switch_to(*scheduler);  // it may have been another thread's when it waited
}

void thread_main() {
  for (;;) {
    acquire(&meetings->start);
    if (!failed) grid_body(grid_state);
    --live;
    wait(State::kEnded);
  }
}

void end_block_barrier() {
  const Place place = threads[current].place;
  for (int t = 0; t < num_threads; ++t) {
    Thread& thread = threads[t];
    if (!same(thread.place, place))
      fail("divergent barrier: thread %d is at %s:%d, thread %d at %s:%d", current, basename_of(place.file), place.line,
           t, basename_of(thread.place.file), thread.place.line);
    thread.state = State::kRunnable;
  }
  at_block_barrier = 0;
  block_turn ^= 1;
}

bool all_lanes_met(int first, unsigned mask) {
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const Thread& other = threads[first + lane];
    if (first + lane >= num_threads || other.state != State::kAtExchange || other.mask != mask ||
        !same(other.place, threads[current].place))
      return false;
  }
  return true;
}

std::string who_waits() {
  std::string out;
  int shown = 0;
  for (int t = 0; t < num_threads && shown < 4; ++t) {
    const Thread& thread = threads[t];
    const bool repeats = t && thread.state == threads[t - 1].state && same(thread.place, threads[t - 1].place) &&
                         thread.mask == threads[t - 1].mask;
    if (repeats) continue;
    ++shown;
    out += "; from thread " + std::to_string(t) + " on ";
    if (thread.state == State::kEnded) {
      out += "ended";
    } else {
      char mask[16] = "";
      if (thread.state == State::kAtExchange) std::snprintf(mask, sizeof(mask), "(%08x)", thread.mask);
      out += std::string("at ") + thread.place.what + mask + " " + basename_of(thread.place.file) + ":" +
             std::to_string(thread.place.line);
    }
  }
  return out;
}

void run_block(std::vector<std::unique_ptr<Fiber>>& fibers, int64_t number) {
  while (int(fibers.size()) < num_threads) fibers.push_back(std::make_unique<Fiber>(thread_main));
  for (int t = 0; t < num_threads; ++t) {
    // A fiber's accesses are in order for TSan: in the next block it plays another thread, or it would hide the race
    // of a thread with the same one of another block.
    threads[t] = {};
    threads[t].fiber = fibers[(t + number * 37) % int64_t(fibers.size())].get();
  }
  live = num_threads;
  at_block_barrier = block_turn = 0;
  for (int& turn : warp_turns) turn = 0;
  release(&meetings->start);
  while (live && !failed) {
    bool progress = false;
    for (current = 0; current < num_threads && !failed; ++current) {
      if (threads[current].state != State::kRunnable) continue;
      progress = true;
      const unsigned t = unsigned(current);
      threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
      scheduler->switch_to(*threads[current].fiber);
    }
    if (live && !progress) fail("threads wait for one another for ever%s", who_waits().c_str());
  }
  if (!failed) return;
  for (current = 0; current < num_threads; ++current)
    if (threads[current].state != State::kEnded) scheduler->switch_to(*threads[current].fiber);
}

std::map<const void*, size_t>& shared_limits() {
  static std::map<const void*, size_t> limits;
  return limits;
}

}  // namespace

void block_barrier(Place place) {
  Thread& self = threads[current];
  self.place = place;
  uint64_t* address = &meetings->block.turn[block_turn];
  release(address);
  if (++at_block_barrier == num_threads) {
    end_block_barrier();
  } else {
    wait(State::kAtBlockBarrier);
  }
  acquire(address);
}

uint64_t exchange(unsigned mask, uint64_t bits, int source, Place place) {
  Thread& self = threads[current];
  const int lane = current % warpSize, warp = current / warpSize, first = current - lane;
  self.place = place;
  self.mask = mask;
  self.source = source;
  self.given = bits;
  if (!(mask >> lane & 1)) {
    fail("%s %s:%d: lane %d is not in its own mask %08x", place.what, basename_of(place.file), place.line, lane, mask);
    wait(State::kEnded);  // for ever
  }
  if (!(mask >> (source & (warpSize - 1)) & 1)) {
    fail("%s %s:%d: lane %d reads lane %d, which is not in the mask %08x", place.what, basename_of(place.file),
         place.line, lane, source, mask);
    wait(State::kEnded);  // for ever
  }
  const bool orders_memory = same(place.what, "__syncwarp");
  uint64_t* address = &meetings->warps[warp].turn[warp_turns[warp]];
  if (orders_memory) release(address);
  self.state = State::kAtExchange;
  if (all_lanes_met(first, mask)) {
    for (int other = 0; other < warpSize; ++other) {
      if (!(mask >> other & 1)) continue;
      Thread& thread = threads[first + other];
      thread.received = threads[first + (thread.source & (warpSize - 1))].given;
      thread.state = State::kRunnable;
    }
    warp_turns[warp] ^= 1;
  } else {
    wait(State::kAtExchange);
  }
  if (orders_memory) acquire(address);
  return self.received;
}

unsigned ballot(unsigned mask, bool vote, Place place) {
  unsigned votes = 0;
  for (int lane = 0; lane < warpSize; ++lane)
    if (mask >> lane & 1) votes |= unsigned(exchange(mask, uint64_t(vote), lane, place)) << lane;
  return votes;
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* state) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t block_size = uint64_t(block.x) * block.y * block.z;
  if (!block_size || block_size > kMostThreads || block.z > 64) return cudaErrorInvalidConfiguration;
  if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  const auto asked = shared_limits().find(kernel);
  if (config.dynamicSmemBytes > (asked == shared_limits().end() ? kSharedUnasked : asked->second))
    return cudaErrorInvalidValue;

  gridDim = grid;
  blockDim = block;
  num_threads = int(block_size);
  grid_body = body;
  grid_state = state;
  failed = false;
  Fiber here;
  scheduler = &here;
  // Kept from launch to launch, since making one costs more than running it; after a failure they are of no more use.
  static auto* fibers = new std::vector<std::unique_ptr<Fiber>>;
  // Under TSan every block has memory of its own, since nothing orders the blocks that would reuse it.
  std::vector<std::unique_ptr<unsigned char[]>> shared;
  std::vector<std::unique_ptr<BlockMeetings>> all_meetings;
  int64_t number = 0;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x && !failed; ++x, ++number) {
        blockIdx = {x, y, z};
#if !defined(HARNESS_TSAN)
        shared.clear();
        all_meetings.clear();
#endif
        all_meetings.push_back(std::make_unique<BlockMeetings>());
        meetings = all_meetings.back().get();
        shared.emplace_back(new unsigned char[config.dynamicSmemBytes]);
        shared_memory = shared.back().get();
        std::memset(shared_memory, 0xff, config.dynamicSmemBytes);  // NaN in float and double
        run_block(*fibers, number);
      }
  acquire(&launch_end);
  if (!failed) return cudaSuccess;
  fibers->clear();
  return cudaErrorLaunchFailure;
}

}  // namespace harness

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return harness::failure;
  }
  return "unknown error";
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || size_t(value) > harness::kMostShared) return cudaErrorInvalidValue;
  harness::shared_limits()[kernel] = size_t(value);
  return cudaSuccess;
}
