// Sparse matrix-vector products on a processor: a walk over the rows of kept channels. Layout and definition are those
// of packed.py. Every output is summed by one thread in the order of the list, so that results are the same each time.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t WALKED = 8;    // rows that are read side by side: so many streams a processor prefetches well
constexpr int64_t BLOCK = 1024;  // columns whose sums stay in the innermost cache meanwhile
constexpr int64_t SMALLEST = 128;

// As PackedLinear in packed.py, field by field.
struct Linear {
    int64_t outputs, rank, stride, first, first_output, first_rank;
};

struct Bfloat16 {
    uint16_t bits;
};

inline float number(float value) { return value; }
inline float number(Bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void store(float *place, float value) { *place = value; }
inline void store(Bfloat16 *place, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (std::isnan(value)) {
        place->bits = 0x7fc0;
    } else {
        place->bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to the nearest, ties to even
    }
}

// The rows that one layer walks over, and what each is multiplied with, for every token.
struct List {
    std::vector<int32_t> rows;
    std::vector<float> values;  // (tokens, entries)
    int64_t entries = 0;
};

template <typename T, int TOKENS>
void keep(const T *x, int64_t inputs, const float *limits, const Linear &linear, List &list, int32_t *kept) {
    const int64_t most = inputs + linear.rank;
    list.rows.resize(most);
    list.values.resize(TOKENS * most);
    int64_t count = 0;
    int32_t all = 0;
    for (int64_t channel = 0; channel < inputs; ++channel) {
        bool any = false;
        for (int token = 0; token < TOKENS; ++token) {
            const float value = number(x[token * inputs + channel]);
            const bool large = !(std::fabs(value) <= limits[channel]);  // not-a-number is kept
            list.values[token * most + count] = large ? value : 0.0f;
            any |= large;
            all += large;
        }
        list.rows[count] = static_cast<int32_t>(channel);
        count += any;
    }
    list.entries = count;
    if (kept != nullptr) *kept += all;
}

template <typename T>
float product(const T *left, const T *right, int64_t length) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t place = 0; place < length; ++place) sum += number(left[place]) * number(right[place]);
    return sum;
}

template <typename T, int TOKENS>
void walk(const T *rows, const Linear &linear, const List &list, int64_t most, int64_t begin, int64_t columns,
          float (*sums)[BLOCK]) {
    for (int token = 0; token < TOKENS; ++token) std::fill(sums[token], sums[token] + columns, 0.0f);
    const int32_t *at = list.rows.data();
    const float *values = list.values.data();
    int64_t entry = 0;
    for (; entry + WALKED <= list.entries; entry += WALKED) {
        const T *row[WALKED];
        for (int64_t place = 0; place < WALKED; ++place) row[place] = rows + at[entry + place] * linear.stride + begin;
        for (int token = 0; token < TOKENS; ++token) {
            const float *value = values + token * most + entry;
            float *sum = sums[token];
            const float v0 = value[0], v1 = value[1], v2 = value[2], v3 = value[3];
            const float v4 = value[4], v5 = value[5], v6 = value[6], v7 = value[7];
#pragma omp simd
            for (int64_t column = 0; column < columns; ++column) {
                sum[column] += (v0 * number(row[0][column]) + v1 * number(row[1][column]) +
                                (v2 * number(row[2][column]) + v3 * number(row[3][column]))) +
                               (v4 * number(row[4][column]) + v5 * number(row[5][column]) +
                                (v6 * number(row[6][column]) + v7 * number(row[7][column])));
            }
        }
    }
    for (; entry < list.entries; ++entry) {
        const T *row = rows + at[entry] * linear.stride + begin;
        for (int token = 0; token < TOKENS; ++token) {
            const float value = values[token * most + entry];
#pragma omp simd
            for (int64_t column = 0; column < columns; ++column) sums[token][column] += value * number(row[column]);
        }
    }
}

template <typename T, int TOKENS>
void multiply(const T *x, int64_t inputs, const Linear *linears, int64_t layers, const T *rows, const float *limits,
              const T *down, const T *bias, T *y, int32_t *counts, int threads) {
    static thread_local std::vector<List> lists;
    lists.resize(std::max<size_t>(lists.size(), layers));
    List *const list = lists.data();  // the caller's: each thread would otherwise see its own
    int64_t outputs = 0, widest = 0;
    for (int64_t layer = 0; layer < layers; ++layer) {
        outputs += linears[layer].outputs;
        widest = std::max(widest, linears[layer].outputs);
    }
    // Blocks small enough that every thread has some.
    const int64_t share = (outputs / (2 * threads) + 63) / 64 * 64;
    const int64_t block = std::clamp<int64_t>(share, SMALLEST, BLOCK);
    const int64_t blocks = (widest + block - 1) / block;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t layer = 0; layer < layers; ++layer) {
            keep<T, TOKENS>(x, inputs, limits + layer * inputs, linears[layer], list[layer],
                            counts == nullptr ? nullptr : counts + layer);
        }
        for (int64_t layer = 0; layer < layers; ++layer) {
            const Linear &linear = linears[layer];
            const int64_t most = inputs + linear.rank;
#pragma omp for schedule(static) nowait
            for (int64_t rank = 0; rank < linear.rank; ++rank) {
                const int64_t entry = list[layer].entries + rank;
                list[layer].rows[entry] = static_cast<int32_t>(inputs + rank);
                for (int token = 0; token < TOKENS; ++token) {
                    list[layer].values[token * most + entry] =
                        product(down + (linear.first_rank + rank) * inputs, x + token * inputs, inputs);
                }
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t layer = 0; layer < layers; ++layer) list[layer].entries += linears[layer].rank;
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < layers * blocks; ++task) {
            const int64_t layer = task / blocks;
            const Linear &linear = linears[layer];
            const int64_t begin = task % blocks * block;
            const int64_t columns = std::min(block, linear.outputs - begin);
            if (columns <= 0) continue;
            alignas(64) float sums[TOKENS][BLOCK];
            walk<T, TOKENS>(rows + linear.first, linear, list[layer], inputs + linear.rank, begin, columns, sums);
            for (int token = 0; token < TOKENS; ++token) {
                const int64_t place = linear.first_output + begin;
                for (int64_t column = 0; column < columns; ++column) {
                    const float added = bias == nullptr ? 0.0f : number(bias[place + column]);
                    store(y + token * outputs + place + column, sums[token][column] + added);
                }
            }
        }
    }
}

template <typename T>
int multiply_tokens(int tokens, const void *x, int64_t inputs, const int64_t *linears, int64_t layers, const void *rows,
                    const float *limits, const void *down, const void *bias, void *y, int32_t *counts, int threads) {
    const auto call = tokens == 1 ? multiply<T, 1> : multiply<T, 2>;
    if (tokens != 1 && tokens != 2) return 1;
    call(static_cast<const T *>(x), inputs, reinterpret_cast<const Linear *>(linears), layers,
         static_cast<const T *>(rows), limits, static_cast<const T *>(down), static_cast<const T *>(bias),
         static_cast<T *>(y), counts, threads);
    return 0;
}

template <typename T>
int multiply_rows(int64_t tokens, const T *x, int64_t inputs, int64_t outputs, const T *weight, const bool *kept,
                  const T *bias, T *y, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t output = 0; output < outputs; ++output) {
        for (int64_t token = 0; token < tokens; ++token) {
            float value = 0.0f;
            if (kept[token * outputs + output]) {
                value = product(weight + output * inputs, x + token * inputs, inputs);
                if (bias != nullptr) value += number(bias[output]);
            }
            store(y + token * outputs + output, value);
        }
    }
    return 0;
}

}  // namespace

extern "C" int vivace_sparse_gemv_float32(int tokens, const void *x, int64_t inputs, const int64_t *linears,
                                          int64_t layers, const void *rows, const float *limits, const void *down,
                                          const void *bias, void *y, int32_t *counts, int threads) {
    return multiply_tokens<float>(tokens, x, inputs, linears, layers, rows, limits, down, bias, y, counts, threads);
}

extern "C" int vivace_sparse_gemv_bfloat16(int tokens, const void *x, int64_t inputs, const int64_t *linears,
                                           int64_t layers, const void *rows, const float *limits, const void *down,
                                           const void *bias, void *y, int32_t *counts, int threads) {
    return multiply_tokens<Bfloat16>(tokens, x, inputs, linears, layers, rows, limits, down, bias, y, counts, threads);
}

extern "C" int vivace_row_gemv_float32(int64_t tokens, const float *x, int64_t inputs, int64_t outputs,
                                       const float *weight, const bool *kept, const float *bias, float *y,
                                       int threads) {
    return multiply_rows(tokens, x, inputs, outputs, weight, kept, bias, y, threads);
}

extern "C" int vivace_row_gemv_bfloat16(int64_t tokens, const Bfloat16 *x, int64_t inputs, int64_t outputs,
                                        const Bfloat16 *weight, const bool *kept, const Bfloat16 *bias, Bfloat16 *y,
                                        int threads) {
    return multiply_rows(tokens, x, inputs, outputs, weight, kept, bias, y, threads);
}
