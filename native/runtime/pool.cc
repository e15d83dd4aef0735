#include "pool.h"

#include <pthread.h>
#include <stdlib.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define ZS_PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define ZS_PAUSE() asm volatile("yield")
#else
#define ZS_PAUSE() ((void)0)
#endif

namespace zs {
namespace {

// About 50 us on a 3 GHz core: longer than the gap between two steps of a model, shorter than anybody would notice.
constexpr int kSpins = 2000;
thread_local int current = -1;  // the worker that this thread is inside a job, or -1

struct Scratch {
  void* data = nullptr;
  int64_t bytes = 0;
  ~Scratch() { free(data); }
};

}  // namespace

struct Pool::Impl {
  std::mutex callers;  // one job at a time
  std::vector<std::thread> threads;
  std::vector<Scratch> scratch;
  std::atomic<uint32_t> generation{0};
  // A worker counts itself in `active`, then looks at `open`; the caller closes, then waits for `active` to fall to zero
  // (both sequentially consistent). So a worker that wakes late costs nothing: the caller never waits for one that
  // has not begun.
  std::atomic<int> active{0};
  std::atomic<bool> open{false};
  std::atomic<bool> stop{false};
  std::atomic<int64_t> next{0};
  int64_t tasks = 0;
  Task task = nullptr;
  void* context = nullptr;

  void work(int worker) {
    current = worker;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) task(context, i, worker);
    current = -1;
  }

  void loop(int worker, uint32_t seen) {
    for (;;) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          ZS_PAUSE();
        } else {
          generation.wait(seen, std::memory_order_acquire);
        }
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load()) return;
      active.fetch_add(1);
      if (open.load()) work(worker);
      active.fetch_sub(1);
    }
  }

  void start(int count) {
    scratch = std::vector<Scratch>(count);
    stop = false;
    const uint32_t now = generation.load();
    for (int i = 1; i < count; ++i) threads.emplace_back([this, i, now] { loop(i, now); });
  }

  void join() {
    stop = true;
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
    for (auto& thread : threads) thread.join();
    threads.clear();
  }
};

Pool::Pool() : impl_(new Impl) {
  int count = cpu().cores;
  if (const char* wanted = getenv("ZEROSKIP_NUM_THREADS")) {
    const int n = atoi(wanted);
    if (n > 0) count = n;
  }
  impl_->start(count);
}

Pool::~Pool() = default;

Pool& Pool::get() {
  // Leaked on purpose: threads must not be joined while the interpreter's static destructors run. After a fork the
  // child has none of the workers, so it makes a pool of its own.
  static Pool* pool = nullptr;
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  });
  return *pool;
}

int Pool::size() const { return static_cast<int>(impl_->scratch.size()); }

int Pool::available() const { return current >= 0 ? 1 : size(); }

void Pool::resize(int threads) {
  std::lock_guard<std::mutex> lock(impl_->callers);
  const int count = threads > 0 ? threads : cpu().cores;
  if (count == size()) return;
  impl_->join();
  impl_->start(count);
}

void Pool::run(int64_t tasks, Task task, void* context, bool alone) {
  if (tasks <= 0) return;
  if (current >= 0) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i, current);
    return;
  }
  std::lock_guard<std::mutex> lock(impl_->callers);
  impl_->tasks = tasks;
  impl_->task = task;
  impl_->context = context;
  impl_->next.store(0, std::memory_order_relaxed);
  if (tasks == 1 || alone || impl_->threads.empty()) {
    impl_->work(0);
    return;
  }
  impl_->open.store(true);
  impl_->generation.fetch_add(1, std::memory_order_release);
  impl_->generation.notify_all();
  impl_->work(0);
  impl_->open.store(false);
  for (int spins = 0; impl_->active.load() > 0;) {
    if (++spins < kSpins) {
      ZS_PAUSE();
    } else {
      std::this_thread::yield();
    }
  }
}

float* Pool::scratch(int worker, int64_t bytes) {
  Scratch& slot = impl_->scratch[worker];
  if (slot.bytes < bytes) {
    free(slot.data);
    const int64_t size = (bytes + 4095) / 4096 * 4096;
    slot.data = aligned_alloc(64, size);
    slot.bytes = slot.data ? size : 0;
  }
  return static_cast<float*>(slot.data);
}

}  // namespace zs
