#include "pool.h"

#include <pthread.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <memory>
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

#if defined(__linux__)
// Keeps workers off each other's processors, and off the caller's. Linux wakes a thread on the processor where it last ran, and in a
// process that was busy a moment ago it looks for no idle one: after a product of NumPy's had ended, whose threads had had a core,
// a worker was seen on the caller's, the other core idle, for 3 to 40 ms (two cores of Emerald Rapids, Linux 6.18; 2026-11). A thread that
// may not run there is moved at once, and takes its processors back when it begins to work.
class Places {
 public:
  explicit Places(int workers) : places_(workers) {}

  // By the worker: where it is, before it works and before it sleeps.
  void note(int worker) { places_[worker].processor.store(sched_getcpu(), std::memory_order_relaxed); }

  void begin(int worker) {
    Place& place = places_[worker];
    place.thread.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_relaxed);
    note(worker);
  }

  void arrive(int worker) {
    Place& place = places_[worker];
    if (place.sent.load(std::memory_order_acquire)) {
      sched_setaffinity(0, sizeof(place.allowed), &place.allowed);
      place.sent.store(false, std::memory_order_release);
    }
    note(worker);
  }

  // By the caller, before it wakes them. Where there are more threads than processors nothing helps, so what did not
  // help some times is tried less and less often.
  void spread() {
    if (rest_ > 0) {
      --rest_;
      return;
    }
    cpu_set_t taken;
    CPU_ZERO(&taken);
    CPU_SET(sched_getcpu(), &taken);
    bool crowded = false;
    for (Place& place : places_) {
      const int at = place.processor.load(std::memory_order_relaxed);
      place.crowded = at >= 0 && CPU_ISSET(at, &taken);
      crowded |= place.crowded;
      if (at >= 0) CPU_SET(at, &taken);
    }
    if (!crowded) {
      tries_ = 0;
      return;
    }
    for (Place& place : places_) {
      if (place.crowded) send(place, taken);
    }
    tries_ = std::min(tries_ + 1, 18);
    rest_ = tries_ <= 8 ? 0 : 1 << (tries_ - 8);
  }

 private:
  struct alignas(64) Place {
    std::atomic<int> processor{-1};
    std::atomic<pid_t> thread{0};
    std::atomic<bool> sent{false};  // it may not run everywhere, and has yet to take back `allowed`
    bool crowded = false;
    cpu_set_t allowed;
  };

  static void send(Place& place, const cpu_set_t& taken) {
    const pid_t thread = place.thread.load(std::memory_order_relaxed);
    if (place.sent.load(std::memory_order_acquire) || sched_getaffinity(thread, sizeof(place.allowed), &place.allowed)) return;
    cpu_set_t elsewhere = place.allowed;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &taken)) CPU_CLR(i, &elsewhere);
    }
    if (CPU_COUNT(&elsewhere) == 0) return;
    place.sent.store(true, std::memory_order_release);
    sched_setaffinity(thread, sizeof(elsewhere), &elsewhere);
  }

  std::vector<Place> places_;  // the caller's is not used: it is asked
  int rest_ = 0, tries_ = 0;
};
#else
struct Places {
  explicit Places(int) {}
  void note(int) {}
  void begin(int) {}
  void arrive(int) {}
  void spread() {}
};
#endif

}  // namespace

// Tasks that follow each other go to one worker, and the same ones in every call of a kind: it reads on where it ended, and finds in its
// caches what it had there the last time. Who has done its own helps the others.
struct alignas(64) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

struct Pool::Impl {
  std::mutex callers;  // one job at a time
  std::vector<std::thread> threads;
  std::vector<Share> shares;  // [worker]
  std::vector<Scratch> scratch;
  std::unique_ptr<Places> places;
  std::atomic<uint32_t> generation{0};
  // A worker counts itself in `active`, then looks at `open`; the caller closes, then waits for `active` to fall to zero
  // (both sequentially consistent). So a worker that wakes late costs nothing: the caller never waits for one that
  // has not begun.
  std::atomic<int> active{0};
  std::atomic<bool> open{false};
  std::atomic<bool> stop{false};
  Task task = nullptr;
  void* context = nullptr;

  void work(int worker) {
    current = worker;
    const size_t count = shares.size(), own = static_cast<size_t>(worker);
    for (size_t s = own; s < own + count; ++s) {
      Share& share = shares[s < count ? s : s - count];
      for (int64_t i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) task(context, i, worker);
    }
    current = -1;
  }

  void cut(int64_t tasks, int64_t workers) {
    for (int64_t w = 0; w < static_cast<int64_t>(shares.size()); ++w) {
      shares[w].end = std::min(w + 1, workers) * tasks / workers;
      shares[w].next.store(std::min(w, workers) * tasks / workers, std::memory_order_relaxed);
    }
  }

  void loop(int worker, uint32_t seen) {
    places->begin(worker);
    for (;;) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          ZS_PAUSE();
        } else {
          places->note(worker);
          generation.wait(seen, std::memory_order_acquire);
        }
      }
      places->arrive(worker);
      seen = generation.load(std::memory_order_acquire);
      if (stop.load()) return;
      active.fetch_add(1);
      if (open.load()) work(worker);
      active.fetch_sub(1);
    }
  }

  void start(int count) {
    scratch = std::vector<Scratch>(count);
    shares = std::vector<Share>(count);
    places = std::make_unique<Places>(count);
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
  impl_->task = task;
  impl_->context = context;
  const bool one = tasks == 1 || alone || impl_->threads.empty();
  impl_->cut(tasks, one ? 1 : size());
  if (one) {
    impl_->work(0);
    return;
  }
  impl_->places->spread();
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
