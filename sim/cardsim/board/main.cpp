// SPDX-License-Identifier: Apache-2.0
// A board in a process of its own: the generated Verilog, an SDRAM at its pins, and its serial line as a pseudo-terminal, whose name is the first line of output.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "Vheddle_board_bench.h"
#include "line.h"
#include "sdram.h"
#include "verilated.h"

namespace {
constexpr uint64_t kRest = 1'000'000;       // cycles without a bit on the line after which the simulation waits for some
constexpr uint64_t kSlice = 1'000;          // cycles between two waits
volatile sig_atomic_t ends = 0;
void end(int) { ends = 1; }

double number(char** arguments, int k) { return strtod(arguments[k], nullptr); }
}  // namespace

// Arguments: clock (Hz), baud, power-up (ns), faults (per mille of bytes), seed, then the chip's figures in the order of heddle::Chip.
int main(int count, char** arguments) {
    if (count != 18) return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, end);
    signal(SIGINT, SIG_IGN);        // Ctrl-C is the parent's affair
    const double clock = number(arguments, 1), baud = number(arguments, 2), power_up = number(arguments, 3);
    const uint64_t seed = uint64_t(number(arguments, 5));
    unsigned whole[4];
    double times[8];
    for (int k = 0; k < 4; k++) whole[k] = unsigned(number(arguments, 6 + k));
    for (int k = 0; k < 8; k++) times[k] = number(arguments, 10 + k);
    const heddle::Chip chip = {whole[0], whole[1], whole[2], whole[3], times[0], times[1], times[2], times[3], times[4], times[5], times[6], times[7]};

    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2);
    context->randSeed(int(seed % 0x7FFFFFFF) + 1);
    auto top = std::make_unique<Vheddle_board_bench>(context.get());
    heddle::Sdram sdram(chip, clock, power_up);
    heddle::Line line(clock / baud, unsigned(number(arguments, 4)), seed);
    printf("%s\n", line.name().c_str());
    fflush(stdout);

    uint64_t cycle = 0;
    top->rx = 1;
    top->rst = 1;
    while (!ends && !context->gotFinish()) {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->rst = cycle < 16;
        top->rx = line.clock(top->tx);
        top->dq_i = sdram.clock({bool(top->cke), bool(top->cs_n), bool(top->dq_oe),
                                 unsigned(top->ras_n << 2 | top->cas_n << 1 | top->we_n), top->ba, top->a, top->dqm, top->dq_o});
        top->eval();
        if (!sdram.violation().empty()) {
            fprintf(stderr, "SDRAM, %s\n", sdram.violation().c_str());
            return 3;
        }
        if (++cycle % kSlice == 0 && line.idle() > kRest) line.wait(20);
    }
    printf("%" PRIu64 " cycles\n", cycle);
    return context->gotFinish() ? 4 : 0;
}
