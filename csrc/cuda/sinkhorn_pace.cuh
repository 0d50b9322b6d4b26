// When to ask Newton's method.
#pragma once

namespace transphere {

// Whether updates are so slow that a Newton step pays: by the lowest error of each four.
class Pace {
 public:
  __device__ void restart(int wait) { since_ = -wait, mark_ = lowest_ = INFINITY; }
  __device__ __forceinline__ bool slow(float error, float aim) {
    constexpr int kOver = 4;
    constexpr float kMost = 20;  // updates that a few Newton steps cost
    if (error < lowest_) lowest_ = error;
    if (++since_ % kOver) return false;
    const bool is = !(lowest_ < mark_) || kOver * log(aim / lowest_) / log(lowest_ / mark_) > kMost;
    mark_ = lowest_;
    return is && since_ >= 0;
  }

 private:
  int since_ = -12;
  float mark_ = INFINITY, lowest_ = INFINITY;
};

}  // namespace transphere
