// SPDX-License-Identifier: Apache-2.0
// Clock loop around a Verilated component: streams from and into arrays, with random stalls.

#include <cstdint>
#include <cstring>

#include "tables.h"
#include "verilated.h"

namespace {

// A port of any width from and to 32-bit words, low word first.
template <typename T> void put(T& port, const uint32_t* words) {
    if constexpr (sizeof(T) > 4) {
        std::memcpy(&port, words, sizeof(T));
    } else {
        port = static_cast<T>(*words);
    }
}

template <typename T> void get(const T& port, uint32_t* words) {
    if constexpr (sizeof(T) > 4) {
        std::memcpy(words, &port, sizeof(T));
    } else {
        *words = port;
    }
}

struct Source {
    int words;
    void (*valid)(Top*, bool);
    bool (*ready)(Top*);
    void (*payload)(Top*, const uint32_t*);
};

struct Sink {
    int words;
    void (*ready)(Top*, bool);
    bool (*valid)(Top*);
    void (*payload)(Top*, uint32_t*);
};

// Verilator spells two underscores in a row as one and a code.
#define SOURCE_FUNCTIONS(name) \
    [](Top* t, bool v) { t->name##___05Fvalid = v; }, \
    [](Top* t) { return bool(t->name##___05Fready); }, \
    [](Top* t, const uint32_t* w) { put(t->name##___05Fpayload, w); }
#define SINK_FUNCTIONS(name) \
    [](Top* t, bool r) { t->name##___05Fready = r; }, \
    [](Top* t) { return bool(t->name##___05Fvalid); }, \
    [](Top* t, uint32_t* w) { get(t->name##___05Fpayload, w); }

const Source sources[] = {SOURCES};
const Sink sinks[] = {SINKS};
constexpr int source_count = sizeof(sources) / sizeof(sources[0]);
constexpr int sink_count = sizeof(sinks) / sizeof(sinks[0]);

bool pause(uint32_t& state, uint32_t stall) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state < stall;
}

}  // namespace

struct Stream {
    uint32_t* data;
    uint64_t count;
    uint32_t stall;
    uint32_t seed;
    uint64_t done;
    uint64_t* cycles;
};

// `anew`: with a new model, not as the last run left it.
// Cycles of the run; -1 at the limit; -100 - k if sink k gives too much, -200 - k if it breaks a rule.
extern "C" int64_t run(Stream* in, Stream* out, const uint32_t* plain, uint64_t* high,
                       uint64_t limit, uint64_t extra, bool anew) {
    static VerilatedContext* context = nullptr;
    static Top* t = nullptr;
    if (anew || !t) {
        delete t;
        delete context;
        context = new VerilatedContext;
        context->randReset(2);
        context->randSeed(1);
        t = new Top{context};
    }
    t->clk = 0;
    t->rst = 1;
    for (int k = 0; k < source_count; k++) sources[k].valid(t, false);
    for (int k = 0; k < sink_count; k++) sinks[k].ready(t, false);
    const uint32_t* word = plain;
#define X(name, size) put(t->name, word); word += size;
    PLAIN_IN
#undef X
    for (int k = 0; k < 4; k++) {
        t->clk = k & 1;
        t->eval();
    }
    t->rst = 0;
    t->clk = 0;
    t->eval();

    bool offered[source_count + 1] = {};
    bool held[sink_count + 1] = {};
    static uint32_t now[sink_count + 1][1024], before[sink_count + 1][1024];
    uint64_t idle = 0, cycle = 0;
    int64_t status = 0;
    for (; idle < extra; cycle++) {
        if (cycle >= limit) {
            status = -1;
            break;
        }
        bool through = true;
        for (int k = 0; k < source_count; k++) {
            Stream& s = in[k];
            if (!offered[k] && s.done < s.count && !(s.stall && pause(s.seed, s.stall))) {
                sources[k].payload(t, s.data + s.done * sources[k].words);
                offered[k] = true;
            }
            sources[k].valid(t, offered[k]);
            through &= s.done == s.count;
        }
        bool ready[sink_count + 1];
        for (int k = 0; k < sink_count; k++) {
            ready[k] = !(out[k].stall && pause(out[k].seed, out[k].stall));
            sinks[k].ready(t, ready[k]);
            through &= out[k].done == out[k].count;
        }
        idle = through ? idle + 1 : 0;
        t->eval();
        for (int k = 0; k < source_count; k++) {
            if (offered[k] && sources[k].ready(t)) {
                offered[k] = false;
                in[k].done++;
            }
        }
        for (int k = 0; k < sink_count; k++) {
            const size_t bytes = 4 * sinks[k].words;
            const bool valid = sinks[k].valid(t);
            sinks[k].payload(t, now[k]);
            if (held[k] && (!valid || std::memcmp(now[k], before[k], bytes))) status = -200 - k;
            if (valid && ready[k]) {
                if (out[k].done == out[k].count) {
                    status = -100 - k;
                } else {
                    std::memcpy(out[k].data + out[k].done * sinks[k].words, now[k], bytes);
                    out[k].cycles[out[k].done++] = cycle;
                }
            }
            held[k] = valid && !ready[k];
            std::memcpy(before[k], now[k], bytes);
        }
        int port = 0;
        (void)port;
#define X(name, size) { uint32_t words[size + 1] = {}; get(t->name, words); \
        for (uint32_t w : words) if (w) { high[port]++; break; } port++; }
        PLAIN_OUT
#undef X
        if (status) break;
        t->clk = 1;
        t->eval();
        t->clk = 0;
        t->eval();
    }
    return status ? status : static_cast<int64_t>(cycle);
}
