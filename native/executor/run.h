// One pass of a program over a batch, or over a part of one: its buffers, and its steps one after the other.
#pragma once

#include <stdlib.h>

#include <vector>

#include "program.h"

namespace zs {

struct Tile {
  int sequence;
  int64_t q0, count;
};

// What a pass works with; kept from pass to pass, so that one of a size seen before allocates nothing.
struct RunState {
  ~RunState() { free(arena); }
  float* arena = nullptr;
  int64_t arena_floats = 0;
  std::vector<int64_t> starts;  // of each buffer in the arena, -1: not used
  std::vector<int64_t> offsets;  // of the sequences of a part, from its first
  std::vector<Sequence> sequences;
  std::vector<Tile> tiles;   // queries that lie in panels
  std::vector<int> singles;  // sequences of one token with a cache
  std::vector<int32_t> positions;  // of each lane in its sequence, the past counted
  std::vector<int32_t> index;
  std::vector<float> partials;
  struct Rotation {
    const float* freqs;
    float scale;
    int64_t half;
    std::vector<float> cosine, sine;
  };
  std::vector<Rotation> rotations;
  size_t rotations_used = 0;
  int last_x = -1;  // the buffer that the last product multiplied, while nothing wrote to it
};

class Run {
 public:
  Run(const Program& program, RunState& state, const Batch& batch) : program_(program), state_(state), batch_(batch) {}
  // Lays out the buffers that the steps of `needed` and the outputs use. False: no memory.
  bool plan(const std::vector<bool>& needed, const std::vector<int>& outputs, bool fill_nan);
  // step_seconds: null, or one a step, added to.
  void steps(const std::vector<bool>& needed, double* step_seconds);
  void copy(int output, float* place) const;

 private:
  View view(int slice) const;
  void prepare();
  void run_step(const Step& step);
  void run_embed(const Step& step);
  void run_norm(const Step& step, int64_t lanes);
  void run_linear(const Step& step, int64_t lanes);
  void run_rope(const Step& step);
  void run_attention(const Step& step);
  void run_elementwise(const Step& step, int64_t lanes);
  void run_pool(const Step& step);
  const RunState::Rotation& rotation(const Step& step);

  const Program& program_;
  RunState& state_;
  const Batch& batch_;
};

}  // namespace zs
