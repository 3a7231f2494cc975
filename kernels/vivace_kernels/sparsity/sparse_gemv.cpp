// Sparse matrix-vector products on a processor: a walk over the rows of kept channels. Layout and definition are those
// of packed.py. Every output is summed by one thread in the order of the list, so that results are the same each time.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t WALKED = 8;      // rows that are read side by side: so many streams a processor prefetches well
constexpr int64_t SEGMENT = 8192;  // bytes of a row, at most, that are read in one go
constexpr int64_t BLOCK = SEGMENT / 2;  // columns, at most, whose sums stay in the innermost cache meanwhile
constexpr int64_t SMALLEST = 128;
constexpr int64_t LANES = 16;   // sums of a row that are added up at its end
constexpr int64_t PIECE = 128;  // outputs, at most, that a thread takes at a time where weights lie by output

// As PackedLinear in packed.py, field by field.
struct Linear {
    int64_t outputs, rank, stride, first, first_output, first_rank;
};

struct Bfloat16 {
    uint16_t bits;
};

inline float wide(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t pair(const Bfloat16 *place) {
    uint32_t bits;
    std::memcpy(&bits, place, sizeof bits);
    return bits;
}

inline float number(float value) { return value; }
inline float number(Bfloat16 value) { return wide(static_cast<uint32_t>(value.bits) << 16); }
inline float number(int8_t level) { return static_cast<float>(level); }

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

// The rows that one layer walks over, and what each is multiplied with, for every token. Each thread has its own, made by
// itself: finding what is kept takes a thousandth of the time of multiplying it, and waiting for another thread may
// take as long as the other is not given a processor.
struct List {
    int64_t layer = -1;
    int64_t entries = 0;
    std::vector<int32_t> rows;
    std::vector<float> values;  // (tokens, inputs + rank)
};

template <typename T, int TOKENS>
int32_t keep(const T *x, int64_t inputs, const float *limits, const Linear &linear, List &list) {
    const int64_t most = inputs + linear.rank;
    list.rows.resize(most);
    list.values.resize(TOKENS * most);
    int64_t count = 0;
    int32_t kept = 0;
    for (int64_t channel = 0; channel < inputs; ++channel) {
        bool any = false;
        for (int token = 0; token < TOKENS; ++token) {
            const float value = number(x[token * inputs + channel]);
            const bool large = !(std::fabs(value) <= limits[channel]);  // not-a-number is kept
            list.values[token * most + count] = large ? value : 0.0f;
            any |= large;
            kept += large;
        }
        list.rows[count] = static_cast<int32_t>(channel);
        count += any;
    }
    list.entries = count;
    return kept;
}

template <typename T>
constexpr int64_t LINE = 64 / sizeof(T);  // numbers of a line of the cache

// Adds what a line of the cache gives, multiplied with x, to the sums of its lanes.
inline void add_line(const float *row, const float *x, float *parts) {
#pragma omp simd
    for (int64_t lane = 0; lane < LANES; ++lane) parts[lane] += row[lane] * x[lane];
}

// Two neighbours are read as one number: their halves are shifted apart, where each by itself would be spread out first.
inline void add_line(const Bfloat16 *row, const Bfloat16 *x, float *parts) {
#pragma omp simd
    for (int64_t lane = 0; lane < LANES; ++lane) {
        const uint32_t read = pair(row + 2 * lane), given = pair(x + 2 * lane);
        parts[lane] += wide(read << 16) * wide(given << 16);
        parts[lane] += wide(read & 0xffff0000u) * wide(given & 0xffff0000u);
    }
}

template <typename T>
inline void add_line(const int8_t *row, const T *x, float *parts) {
    for (int64_t lines = 0; lines < LINE<int8_t> / LANES; ++lines) {
#pragma omp simd
        for (int64_t lane = 0; lane < LANES; ++lane) {
            parts[lane] += number(row[lines * LANES + lane]) * number(x[lines * LANES + lane]);
        }
    }
}

// What ROWS rows of weights of type W give, each multiplied with x, read side by side; of a row the same bits whatever
// ROWS is. Meanwhile those that come after them are fetched, as in a walk.
template <typename T, int64_t ROWS, typename W>
void products(const W *const *row, const W *const *next, const T *x, int64_t length, float *sums) {
    float parts[ROWS][LANES] = {};
    int64_t place = 0;
    for (; place + LINE<W> <= length; place += LINE<W>) {
        for (int64_t each = 0; each < ROWS; ++each) {
            __builtin_prefetch(next[each] + place, 0, 2);
            add_line(row[each] + place, x + place, parts[each]);
        }
    }
    for (int64_t each = 0; each < ROWS; ++each) {
        float sum = 0.0f;
        for (int64_t rest = place; rest < length; ++rest) sum += number(row[each][rest]) * number(x[rest]);
        for (int64_t lane = 0; lane < LANES; ++lane) sum += parts[each][lane];
        sums[each] = sum;
    }
}

// Adds some columns of WALKED rows to their sums, each row times its value.
template <typename W>
inline void add_rows(const W *const *row, const float *value, int64_t begin, int64_t end, float *sums) {
    const float v0 = value[0], v1 = value[1], v2 = value[2], v3 = value[3];
    const float v4 = value[4], v5 = value[5], v6 = value[6], v7 = value[7];
#pragma omp simd
    for (int64_t column = begin; column < end; ++column) {
        sums[column] += (v0 * number(row[0][column]) + v1 * number(row[1][column]) +
                         (v2 * number(row[2][column]) + v3 * number(row[3][column]))) +
                        (v4 * number(row[4][column]) + v5 * number(row[5][column]) +
                         (v6 * number(row[6][column]) + v7 * number(row[7][column])));
    }
}

// Adds the rows of some entries of a list to the sums of some columns. While rows are added, those that come after them
// are fetched: they lie anywhere, and a processor would begin each of them from scratch.
template <typename W, int TOKENS>
void walk(const W *rows, const Linear &linear, const List &list, int64_t most, int64_t first, int64_t last,
          int64_t begin, int64_t columns, float (*sums)[BLOCK]) {
    const int32_t *at = list.rows.data();
    const float *values = list.values.data();
    int64_t entry = first;
    for (; entry + WALKED <= last; entry += WALKED) {
        const W *row[WALKED], *next[WALKED];
        for (int64_t place = 0; place < WALKED; ++place) {
            row[place] = rows + at[entry + place] * linear.stride + begin;
            next[place] = rows + at[std::min(entry + WALKED + place, last - 1)] * linear.stride + begin;
        }
        int64_t column = 0;
        for (; column + LINE<W> <= columns; column += LINE<W>) {
            for (int64_t place = 0; place < WALKED; ++place) __builtin_prefetch(next[place] + column, 0, 2);
            for (int token = 0; token < TOKENS; ++token) {
                add_rows(row, values + token * most + entry, column, column + LINE<W>, sums[token]);
            }
        }
        for (int token = 0; token < TOKENS; ++token) {
            add_rows(row, values + token * most + entry, column, columns, sums[token]);
        }
    }
    for (; entry < last; ++entry) {
        const W *row = rows + at[entry] * linear.stride + begin;
        for (int token = 0; token < TOKENS; ++token) {
            const float value = values[token * most + entry];
#pragma omp simd
            for (int64_t column = 0; column < columns; ++column) sums[token][column] += value * number(row[column]);
        }
    }
}

// The low-rank coordinates of a call, down x, which all threads share. Whoever needs some that nobody has finished
// computes them, too, and comes to the same bits, so that no thread ever waits for another.
template <typename T, int TOKENS>
struct Coordinates {
    const T *down, *x;
    int64_t inputs, ranks;
    std::vector<std::atomic<float>> values;  // (ranks, tokens)
    std::vector<std::atomic<bool>> finished;

    Coordinates(const T *down, const T *x, int64_t inputs, int64_t ranks)
        : down(down), x(x), inputs(inputs), ranks(ranks), values(ranks * TOKENS), finished(parts(ranks)) {}

    static int64_t parts(int64_t ranks) { return (ranks + WALKED - 1) / WALKED; }

    void compute(int64_t part) {
        if (finished[part].load(std::memory_order_acquire)) return;
        for (int64_t rank = part * WALKED; rank < std::min((part + 1) * WALKED, ranks); ++rank) {
            for (int token = 0; token < TOKENS; ++token) {
                const T *row = down + rank * inputs;
                float sum;
                products<T, 1, T>(&row, &row, x + token * inputs, inputs, &sum);
                values[rank * TOKENS + token].store(sum, std::memory_order_relaxed);
            }
        }
        finished[part].store(true, std::memory_order_release);
    }

    // Puts one layer's at the end of its list.
    void append_to(List &list, const Linear &linear) {
        const int64_t most = inputs + linear.rank;
        for (int64_t rank = 0; rank < linear.rank; ++rank) {
            compute((linear.first_rank + rank) / WALKED);
            list.rows[list.entries + rank] = static_cast<int32_t>(inputs + rank);
            for (int token = 0; token < TOKENS; ++token) {
                list.values[token * most + list.entries + rank] =
                    values[(linear.first_rank + rank) * TOKENS + token].load(std::memory_order_relaxed);
            }
        }
    }
};

// One parallel region, whose end is the only place where threads wait for each other. Work is taken piece by piece: a
// thread that is not given a processor for a while keeps nothing from the others but the piece that it holds.
// Weights of type W that are levels have a scale for each output, with which its sum is multiplied.
template <typename T, typename W, int TOKENS>
void multiply(const T *x, int64_t inputs, const Linear *linears, int64_t layers, const W *rows, const float *scales,
              const float *limits, const T *down, const T *bias, T *y, int32_t *counts, int threads) {
    int64_t outputs = 0, ranks = 0, widest = 0;
    for (int64_t layer = 0; layer < layers; ++layer) {
        outputs += linears[layer].outputs;
        ranks += linears[layer].rank;
        widest = std::max(widest, linears[layer].outputs);
    }
    // As many blocks for each thread: none goes on for long when the others are through.
    const int64_t most_columns = std::min(BLOCK, SEGMENT / static_cast<int64_t>(sizeof(W)));
    const int64_t equal = threads * ((outputs + threads * most_columns - 1) / (threads * most_columns));
    const int64_t block = std::clamp<int64_t>((outputs / equal + 63) / 64 * 64, SMALLEST, most_columns);
    const int64_t blocks = (widest + block - 1) / block;
    Coordinates<T, TOKENS> coordinates(down, x, inputs, ranks);
    const int64_t parts = coordinates.parts(ranks);
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
    {
        static thread_local List list;
        list.layer = -1;
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < parts + layers * blocks;) {
            if (task < parts) {
                coordinates.compute(task);
                continue;
            }
            const int64_t layer = (task - parts) / blocks, begin = (task - parts) % blocks * block;
            const Linear &linear = linears[layer];
            const int64_t most = inputs + linear.rank, columns = std::min(block, linear.outputs - begin);
            if (columns <= 0) continue;
            const bool fresh = list.layer != layer;
            if (fresh) {
                list.layer = layer;
                const int32_t kept = keep<T, TOKENS>(x, inputs, limits + layer * inputs, linear, list);
                if (begin == 0 && counts != nullptr) counts[layer] += kept;
            }
            alignas(64) float sums[TOKENS][BLOCK];
            for (int token = 0; token < TOKENS; ++token) std::fill(sums[token], sums[token] + columns, 0.0f);
            const W *its = rows + linear.first;
            walk<W, TOKENS>(its, linear, list, most, 0, list.entries, begin, columns, sums);
            if (fresh) coordinates.append_to(list, linear);  // by now they are mostly there
            walk<W, TOKENS>(its, linear, list, most, list.entries, list.entries + linear.rank, begin, columns, sums);
            for (int token = 0; token < TOKENS; ++token) {
                const int64_t place = linear.first_output + begin;
                for (int64_t column = 0; column < columns; ++column) {
                    const float added = bias == nullptr ? 0.0f : number(bias[place + column]);
                    const float sum = sums[token][column] * (scales == nullptr ? 1.0f : scales[place + column]);
                    store(y + token * outputs + place + column, sum + added);
                }
            }
        }
    }
}

template <typename T, typename W>
int multiply_tokens(int tokens, const void *x, int64_t inputs, const int64_t *linears, int64_t layers, const void *rows,
                    const float *scales, const float *limits, const void *down, const void *bias, void *y,
                    int32_t *counts, int threads) {
    const auto call = tokens == 1 ? multiply<T, W, 1> : multiply<T, W, 2>;
    if (tokens != 1 && tokens != 2) return 1;
    call(static_cast<const T *>(x), inputs, reinterpret_cast<const Linear *>(linears), layers,
         static_cast<const W *>(rows), scales, limits, static_cast<const T *>(down), static_cast<const T *>(bias),
         static_cast<T *>(y), counts, threads);
    return 0;
}

// The wanted outputs of a matrix that lies by output, or all of them where `kept` is null; the others are zero.
template <typename T, typename W>
int multiply_rows(int64_t tokens, const void *x, int64_t inputs, int64_t outputs, const void *weight,
                  const float *scales, const bool *kept, const void *bias, void *y, int threads) {
    const int64_t piece = std::clamp<int64_t>(outputs / (4 * threads) / WALKED * WALKED, WALKED, PIECE);
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
    for (int64_t begin; (begin = piece * next.fetch_add(1, std::memory_order_relaxed)) < outputs;) {
        const int64_t end = std::min(begin + piece, outputs);
        for (int64_t token = 0; token < tokens; ++token) {
            const T *const read = static_cast<const T *>(x) + token * inputs;
            const W *row[PIECE];
            T *const written = static_cast<T *>(y) + token * outputs;
            int64_t wanted[PIECE], count = 0, done = 0;
            float sums[PIECE];
            for (int64_t output = begin; output < end; ++output) {
                if (kept == nullptr || kept[token * outputs + output]) {
                    row[count] = static_cast<const W *>(weight) + output * inputs;
                    wanted[count++] = output;
                } else {
                    store(written + output, 0.0f);
                }
            }
            for (; done + WALKED <= count; done += WALKED) {
                const W *const *next = row + (done + 2 * WALKED <= count ? done + WALKED : done);
                products<T, WALKED, W>(row + done, next, read, inputs, sums + done);
            }
            for (; done < count; ++done) products<T, 1, W>(row + done, row + done, read, inputs, sums + done);
            for (int64_t each = 0; each < count; ++each) {
                const float added = bias == nullptr ? 0.0f : number(static_cast<const T *>(bias)[wanted[each]]);
                const float scale = scales == nullptr ? 1.0f : scales[wanted[each]];
                store(written + wanted[each], sums[each] * scale + added);
            }
        }
    }
    return 0;
}

}  // namespace

// One function for each type of numbers and each type of weights.
#define PRODUCTS(NAME, T, W)                                                                                        \
    extern "C" int vivace_sparse_gemv_##NAME(int tokens, const void *x, int64_t inputs, const int64_t *linears,     \
                                             int64_t layers, const void *rows, const float *scales,                 \
                                             const float *limits, const void *down, const void *bias, void *y,      \
                                             int32_t *counts, int threads) {                                        \
        return multiply_tokens<T, W>(tokens, x, inputs, linears, layers, rows, scales, limits, down, bias, y, counts,\
                                     threads);                                                                      \
    }                                                                                                               \
    extern "C" int vivace_row_gemv_##NAME(int64_t tokens, const void *x, int64_t inputs, int64_t outputs,           \
                                          const void *weight, const float *scales, const bool *kept, const void *bias,\
                                          void *y, int threads) {                                                   \
        return multiply_rows<T, W>(tokens, x, inputs, outputs, weight, scales, kept, bias, y, threads);             \
    }

PRODUCTS(float32, float, float)
PRODUCTS(bfloat16, Bfloat16, Bfloat16)
PRODUCTS(float32_int8, float, int8_t)
PRODUCTS(bfloat16_int8, Bfloat16, int8_t)
