// A stable radix sort of keys with their indices that a team of threads can share: least digit first, each thread one chunk of the items.
// The result does not depend on the size of the team, and the time not on the keys.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/scratch.h"
#include "team.h"

namespace transphere {

template <typename Key>
struct Item {
  Key key;
  uint32_t index;
};

// kDigits digits of kDigitBits bits hold a key.
template <typename Key, int kDigitBits, int kDigits>
class RadixSort {
 public:
  // Sorts `items`; `spare` has room for as many, and may come back in its place.
  void operator()(Scratch<Item<Key>>& items, Scratch<Item<Key>>& spare, int64_t count, const Team& team) {
    places_.resize(team.size);
    for (int digit = 0; digit < kDigits; ++digit) {
      const int shift = digit * kDigitBits;
      team.run([&](int member) {
        auto& places = places_[member];
        places.assign(kBuckets, 0);
        const auto [begin, end] = team.share(member, count);
        for (int64_t k = begin; k < end; ++k) ++places[items[k].key >> shift & (kBuckets - 1)];
      });
      if (!bucket_starts(count)) continue;
      team.run([&](int member) {
        int64_t* places = places_[member].data();
        const Item<Key>* from = items.data();
        Item<Key>* to = spare.data();
        const auto [begin, end] = team.share(member, count);
        for (int64_t k = begin; k < end; ++k) to[places[from[k].key >> shift & (kBuckets - 1)]++] = from[k];
      });
      items.swap(spare);
    }
  }

 private:
  static constexpr int kBuckets = 1 << kDigitBits;

  // From counts to the first place of each bucket and member; false where one bucket has all.
  bool bucket_starts(int64_t count) {
    int64_t start = 0;
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      const int64_t before = start;
      for (auto& places : places_) {
        const int64_t here = places[bucket];
        places[bucket] = start;
        start += here;
      }
      if (start - before == count) return false;
    }
    return true;
  }

  std::vector<std::vector<int64_t>> places_;  // of each member: how many items of a bucket, then where the next one goes
};

}  // namespace transphere
