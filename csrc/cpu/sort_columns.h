// Sorting W columns of 64-bit keys side by side. A row holds one key of each column and is one vector register, so every comparison is a
// vector minimum and maximum and nothing branches. Batcher's bitonic network, in the form in which all comparators point down: merging two
// sorted halves compares row i with row i from the end, then rows at distance a quarter, an eighth, ... of the block. Three of these levels
// at a time are done on eight rows in registers.
#pragma once
#include <cstdint>

#pragma GCC diagnostic ignored "-Wpsabi"  // of vectors wider than the baseline's as arguments: all these functions are inlined

namespace transphere {

template <int W>
struct Rows {
  typedef int64_t Int __attribute__((vector_size(8 * W)));
  typedef double Real __attribute__((vector_size(8 * W)));
};

template <typename Row>
inline void put_in_order(Row& a, Row& b) {
  const Row low = a < b ? a : b, high = a < b ? b : a;
  a = low, b = high;
}

// Sorts a block of R bitonic rows.
template <int R, typename Row>
inline void merge_in_registers(Row (&r)[R]) {
#pragma GCC unroll 8
  for (int k = R / 2; k; k /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
      if (!(i & k)) put_in_order(r[i], r[i + k]);
}

template <int R, typename Row>
inline void merge_rows(Row* x) {
  Row r[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) r[i] = x[i];
  merge_in_registers(r);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) x[i] = r[i];
}

template <typename Row>
inline void sort_16_rows(Row* x) {
  Row r[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = x[i];
#pragma GCC unroll 4
  for (int half = 1; half < 16; half *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      if (!(i & half)) put_in_order(r[i], r[(i | (2 * half - 1)) - (i & (half - 1))]);
#pragma GCC unroll 4
    for (int k = half / 2; k; k /= 2)
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (!(i & k)) put_in_order(r[i], r[i + k]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = r[i];
}

// The first three levels of merging two sorted halves.
template <typename Row>
inline void fold_halves(Row* x, int half) {
  const int quarter = half / 4;
  for (int i = 0; i < quarter; ++i) {
    Row low[4], high[4];
    Row *a = x + i, *b = x + half + quarter - 1 - i;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) low[j] = a[j * quarter], high[j] = b[j * quarter];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) put_in_order(low[j], high[3 - j]);
    merge_in_registers(low);
    merge_in_registers(high);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) a[j * quarter] = low[j], b[j * quarter] = high[j];
  }
}

// Sorts a block of bitonic rows, of which those from `count` on are known to be in place.
template <typename Row>
inline void merge_block(Row* x, int rows, int count) {
  for (; rows > 16; rows /= 8)
    for (int start = 0; start < count; start += rows)
      for (int i = start, eighth = rows / 8; i < start + eighth; ++i) {
        Row r[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) r[j] = x[i + j * eighth];
        merge_in_registers(r);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) x[i + j * eighth] = r[j];
      }
  for (int start = 0; start < count; start += rows) {
    if (rows == 16) merge_rows<16>(x + start);
    if (rows == 8) merge_rows<8>(x + start);
    if (rows == 4) merge_rows<4>(x + start);
    if (rows == 2) merge_rows<2>(x + start);
  }
}

// Sorts every column, ascending. x has `rows` rows, a power of two from 16 on; those from `count` on hold INT64_MAX.
template <typename Row>
inline void sort_columns(Row* x, int count, int rows) {
  for (int start = 0; start < count; start += 16) sort_16_rows(x + start);
  for (int half = 16; half < rows; half *= 2)
    for (int start = 0; start + half < count; start += 2 * half) {
      fold_halves(x + start, half);
      for (int block = start; block < start + 2 * half && block < count; block += half / 4)
        merge_block(x + block, half / 4, block + half / 4 < count ? half / 4 : count - block);
    }
}

}  // namespace transphere
