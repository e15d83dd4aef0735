// Threads of our own. Why not OpenMP: torch brings an OpenMP runtime of its own, two in one process fight over the cores,
// and ours must also work where there is none. Workers spin briefly after a job (the steps of a model follow each other
// within microseconds), then sleep; the caller takes part in the work.
#pragma once

#include <stdint.h>

#include <memory>

namespace zs {

class Pool {
 public:
  // A task: index in [0, tasks) and the worker that runs it, in [0, size()).
  using Task = void (*)(void* context, int64_t task, int worker);

  static Pool& get();
  ~Pool();
  int size() const;
  int available() const;  // workers that a job of the calling thread would get: one inside a job, else all
  void resize(int threads);  // 0: as many as the process may use
  // Runs every task and returns when all have ended. Calls from several threads take turns; nested calls run inline.
  // `alone`: by the caller; for work of so few microseconds that waking others costs more.
  void run(int64_t tasks, Task task, void* context, bool alone = false);
  // Scratch of at least `bytes`, 64-byte aligned, kept per worker between calls. Contents are undefined.
  float* scratch(int worker, int64_t bytes);

  template <class F> void parallel(int64_t tasks, const F& body, bool alone = false) {
    run(
        tasks, [](void* context, int64_t task, int worker) { (*static_cast<const F*>(context))(task, worker); },
        const_cast<F*>(&body), alone);
  }

 private:
  Pool();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zs
