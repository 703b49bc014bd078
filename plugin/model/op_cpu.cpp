// The addition on a CPU, see op.py for its meaning and for what the tensors hold.
//
// In C++ because a kernel in Python costs more than its work: a decode step of a small model takes three milliseconds,
// and the way from a compiled graph into Python and back would be two percent of that. One thread: what one
// token adds up is the same whoever shares its batch, and even a gate of 64 concepts is a small part of any layer.

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

// One build for every machine that shares a cache: the processor's widest vectors are chosen when it is loaded.
#if defined(__x86_64__) && defined(__linux__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

namespace {

// As in batch.py and fields.py.
enum EntryField { SLOT, ALPHA, DECISION, ENTRY_FIELDS };
enum SlotField { FIRST, COUNT, LIMIT, SLOT_FIELDS };
constexpr int NOT_HERE = -1, COSINE = 2;

// A gate decides in float64, see vectors/nearest.py.
WIDEST double dot(const double* h, const float* c, int64_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < size; ++d) sum += h[d] * static_cast<double>(c[d]);
  return sum;
}

WIDEST double squared_distance(const double* h, const float* c, int64_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < size; ++d) {
    const double apart = h[d] - static_cast<double>(c[d]);
    sum += apart * apart;
  }
  return sum;
}

WIDEST double cosine_distance(const double* h, const float* c, int64_t size) {
  double hh = 0, cc = 0, hc = 0;
#pragma omp simd reduction(+ : hh, cc, hc)
  for (int64_t d = 0; d < size; ++d) {
    const double wide = static_cast<double>(c[d]);
    hh += h[d] * h[d];
    cc += wide * wide;
    hc += h[d] * wide;
  }
  // Inside no limit where one of the two is zero.
  return hh * cc > 0 ? 1 - hc / std::sqrt(hh * cc) : std::numeric_limits<double>::infinity();
}

WIDEST void add_scaled(float* sum, float alpha, const float* row, int64_t size) {
#pragma omp simd
  for (int64_t d = 0; d < size; ++d) sum[d] += alpha * row[d];
}

struct Table {
  const int* slots;      // [S, 3]
  const double* limits;  // [R]
  const double* bias;    // [R]
  const float* rows;     // [R, size]
  int* decided;
  int64_t* counts;  // [2, R]
  int64_t size, total;

  // Notes which row a gate has chosen: now, or in a step before.
  void count(int row, int slot, bool before) const {
    ++counts[(before ? total : 0) + (row == NOT_HERE ? slots[slot * SLOT_FIELDS + FIRST] : row)];
  }

  const float* row(int number) const { return rows + number * size; }

  // The row that a fine profile adds to a token whose stream is h, or NOT_HERE.
  int through_gate(const double* h, int slot) const {
    const int first = slots[slot * SLOT_FIELDS + FIRST], count = slots[slot * SLOT_FIELDS + COUNT];
    double best = -std::numeric_limits<double>::infinity();
    int nearest = first;
    for (int c = first; c < first + count; ++c) {
      const double score = dot(h, row(c), size) - bias[c];
      if (score > best) {  // strictly: the lowest index wins a tie
        best = score;
        nearest = c;
      }
    }
    if (const int metric = slots[slot * SLOT_FIELDS + LIMIT]) {
      const float* c = row(nearest);
      const double apart = metric == COSINE ? cosine_distance(h, c, size) : squared_distance(h, c, size);
      if (!(apart <= limits[nearest])) return NOT_HERE;
    }
    return nearest + count;
  }
};

// Casts a sum to the dtype of the stream; false where a number of it is not finite there.
template <typename scalar_t>
bool rounded(const float* sum, scalar_t* out, int64_t size) {
  float zero = 0;
#pragma omp simd reduction(+ : zero)
  for (int64_t d = 0; d < size; ++d) {
    out[d] = static_cast<scalar_t>(sum[d]);
    zero += static_cast<float>(out[d]) * 0;  // NaN where the number is not finite
  }
  return zero == 0;
}

template <typename scalar_t>
void steer_tokens(const at::Tensor& hidden, const std::optional<at::Tensor>& residual, const at::Tensor& entries,
                  const Table& table, at::Tensor& delta, uint8_t* lost) {
  const int64_t size = table.size, parts = entries.size(2);
  const scalar_t* const hidden_at = hidden.const_data_ptr<scalar_t>();
  const scalar_t* const residual_at = residual ? residual->const_data_ptr<scalar_t>() : nullptr;
  scalar_t* out = delta.mutable_data_ptr<scalar_t>();
  const int* entry = entries.const_data_ptr<int>();
  std::vector<double> h(size);
  std::vector<float> sum(size);
  for (int64_t t = 0; t < hidden.size(0); ++t, entry += ENTRY_FIELDS * parts) {
    bool looked = false, added = false;
    for (int64_t part = 0; part < parts; ++part) {
      const int slot = entry[SLOT * parts + part];
      if (slot == 0) continue;
      int row = table.slots[slot * SLOT_FIELDS + FIRST];
      if (table.slots[slot * SLOT_FIELDS + COUNT] > 0) {
        // At other layers than the gate's a decision slot holds what a former request left.
        const int decision = entry[DECISION * parts + part];
        if (decision > 0) {
          row = table.decided[decision];
        } else {
          if (!looked) {
            for (int64_t d = 0; d < size; ++d) {
              const float other = residual_at ? static_cast<float>(residual_at[t * size + d]) : 0.0f;
              h[d] = static_cast<float>(hidden_at[t * size + d]) + other;
            }
            looked = true;
          }
          row = table.through_gate(h.data(), slot);
          if (decision < 0) table.decided[-decision] = row;
        }
        table.count(row, slot, decision > 0);
      }
      if (row == NOT_HERE) continue;
      if (!added) std::fill(sum.begin(), sum.end(), 0.0f);
      added = true;
      float alpha;
      std::memcpy(&alpha, &entry[ALPHA * parts + part], sizeof alpha);
      add_scaled(sum.data(), alpha, table.row(row), size);
    }
    scalar_t* const mine = out + t * size;
    if (added && rounded(sum.data(), mine, size)) continue;
    std::fill(mine, mine + size, static_cast<scalar_t>(0.0f));
    if (added) lost[t] = 1;
  }
}

bool anything_acts(const at::Tensor& entries, int64_t count) {
  const int64_t parts = entries.size(2);
  const int* entry = entries.const_data_ptr<int>();
  for (int64_t t = 0; t < count; ++t, entry += ENTRY_FIELDS * parts)
    for (int64_t part = 0; part < parts; ++part)
      if (entry[SLOT * parts + part] != 0) return true;
  return false;
}

at::Tensor steer(const at::Tensor& hidden, const std::optional<at::Tensor>& residual, const at::Tensor& summed,
                 const at::Tensor& entries, const at::Tensor& slots, const at::Tensor& limits, const at::Tensor& bias,
                 const at::Tensor& rows, at::Tensor& decided, at::Tensor& lost, at::Tensor& counts,
                 bool opens) {
  uint8_t* const marks = lost.mutable_data_ptr<uint8_t>();
  if (opens) std::memset(marks, 0, hidden.size(0));
  if (!anything_acts(entries, hidden.size(0))) {
    at::Tensor delta = at::empty_like(hidden);
    std::memset(delta.mutable_data_ptr(), 0, delta.nbytes());  // all bits zero is zero in every float dtype
    return delta;
  }
  const Table table{slots.const_data_ptr<int>(),
                    limits.const_data_ptr<double>(),
                    bias.const_data_ptr<double>(),
                    rows.const_data_ptr<float>(),
                    decided.mutable_data_ptr<int>(),
                    counts.mutable_data_ptr<int64_t>(),
                    hidden.size(1),
                    rows.size(0)};
  const at::Tensor h = hidden.contiguous();
  std::optional<at::Tensor> r;
  if (residual && *summed.const_data_ptr<uint8_t>()) {
    TORCH_CHECK(hidden.scalar_type() == residual->scalar_type(), "both parts of a stream have one dtype");
    r = residual->contiguous();
  }
  at::Tensor delta = at::empty_like(h);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, hidden.scalar_type(), "trimtab::steer",
                                  [&] { steer_tokens<scalar_t>(h, r, entries, table, delta, marks); });
  return delta;
}

}  // namespace

TORCH_LIBRARY_IMPL(trimtab, CPU, m) { m.impl("steer", steer); }
