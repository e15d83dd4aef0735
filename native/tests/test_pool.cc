// The pool: every task exactly once, whatever the number of threads, callers and levels.
#include <stdint.h>

#include <atomic>
#include <chrono>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../runtime/pool.h"
#include "check.h"

namespace zs::test {
namespace {

// Runs `tasks` and says whether each ran once, by a worker that exists.
bool each_once(Pool& pool, int64_t tasks) {
  std::vector<std::atomic<int>> hits(static_cast<size_t>(tasks));
  std::atomic<bool> worker_ok{true};
  const int size = pool.size();
  pool.parallel(tasks, [&](int64_t i, int worker) {
    hits[i].fetch_add(1);
    if (worker < 0 || worker >= size) worker_ok = false;
  });
  for (const auto& hit : hits) {
    if (hit.load() != 1) return false;
  }
  return worker_ok;
}

}  // namespace

ZS_TEST(pool_each_task_once_for_every_size) {
  Pool& pool = Pool::get();
  for (int threads : {1, 2, 3, 5, 1, 4}) {
    pool.resize(threads);
    check(pool.size() == threads, "resize does not give " + std::to_string(threads));
    for (int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
      check(each_once(pool, tasks), std::to_string(threads) + " threads, " + std::to_string(tasks) + " tasks");
    }
  }
  pool.resize(0);
  check(pool.size() >= 1, "resize(0) leaves no worker");
}

ZS_TEST(pool_many_small_jobs) {
  Pool& pool = Pool::get();
  pool.resize(3);
  int64_t sum = 0;
  constexpr int64_t kJobs = 5000;
  for (int64_t job = 0; job < kJobs; ++job) {
    std::atomic<int64_t> done{0};
    pool.parallel(job % 5 + 1, [&](int64_t, int) { done.fetch_add(1); });
    sum += done.load();
  }
  check(sum == kJobs * 3, "tasks were lost or repeated over many jobs");
  pool.resize(0);
}

ZS_TEST(pool_nested_calls_run_inline) {
  Pool& pool = Pool::get();
  pool.resize(3);
  std::atomic<int64_t> inner{0};
  std::atomic<int64_t> moved{0};
  pool.parallel(20, [&](int64_t, int outer) {
    pool.parallel(30, [&](int64_t, int worker) {
      inner.fetch_add(1);
      if (worker != outer) moved.fetch_add(1);
    });
  });
  check(inner.load() == 600, "nested tasks were lost or repeated");
  check(moved.load() == 0, "a nested task left its worker");
  check(each_once(pool, 50), "the pool is not usable after nested calls");
  pool.resize(0);
}

ZS_TEST(pool_callers_take_turns) {
  Pool& pool = Pool::get();
  pool.resize(2);
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int64_t job = 0; job < 200; ++job) good.fetch_add(each_once(pool, job % 9) ? 1 : 0);
    });
  }
  for (auto& caller : callers) caller.join();
  check(good.load() == 800, "callers on several threads disturb each other");
  pool.resize(0);
}

ZS_TEST(pool_scratch_is_aligned_and_kept) {
  Pool& pool = Pool::get();
  pool.resize(2);
  for (int worker = 0; worker < 2; ++worker) {
    float* small = pool.scratch(worker, 100);
    check(reinterpret_cast<uintptr_t>(small) % 64 == 0, "scratch is not aligned");
    small[24] = 3;
    check(pool.scratch(worker, 60) == small && small[24] == 3, "a smaller request does not reuse the scratch");
    float* large = pool.scratch(worker, 1 << 20);
    large[(1 << 18) - 1] = 1;
    check(reinterpret_cast<uintptr_t>(large) % 64 == 0, "grown scratch is not aligned");
  }
  check(pool.scratch(0, 64) != pool.scratch(1, 64), "two workers share their scratch");
  pool.resize(0);
}

#if defined(__linux__)
// A worker that was left on the caller's processor goes to another one, and may run everywhere again afterwards.
ZS_TEST(pool_worker_leaves_the_callers_processor) {
  cpu_set_t all;
  sched_getaffinity(0, sizeof(all), &all);
  if (CPU_COUNT(&all) < 2) return;
  Pool& pool = Pool::get();
  pool.resize(1);  // the callers of other tests have taught it that there are too many of them for it to help
  pool.resize(2);
  std::atomic<pid_t> thread{0};
  std::atomic<int> place{-1};
  const auto both = [&] {  // each of the two threads takes a task, since the first one lasts until the other has begun
    std::atomic<int> begun{0};
    pool.parallel(2, [&](int64_t, int worker) {
      if (worker == 1) {
        thread = static_cast<pid_t>(syscall(SYS_gettid));
        place = sched_getcpu();
      }
      begun.fetch_add(1);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
      while (begun.load() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    });
  };
  both();
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  sched_setaffinity(0, sizeof(here), &here);
  sched_setaffinity(thread.load(), sizeof(here), &here);
  both();  // it notes where it is
  check(place.load() == sched_getcpu(), "the worker could not be put beside the caller");
  sched_setaffinity(thread.load(), sizeof(all), &all);
  both();
  both();
  check(place.load() != sched_getcpu(), "the worker stays on the caller's processor");
  cpu_set_t now;
  sched_getaffinity(thread.load(), sizeof(now), &now);
  check(CPU_EQUAL(&now, &all), "the worker may not run everywhere any more");
  sched_setaffinity(0, sizeof(all), &all);
  pool.resize(0);
}
#endif

}  // namespace zs::test
