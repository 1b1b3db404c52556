// SPDX-License-Identifier: Apache-2.0
// The cards of a ring, or one card, as a library: the clock loop stays in C++ until the cards that are waited for raise their interrupts.
//
// Every call ends with all cards at the same cycle.  In between they are simulated in windows: what a card sends takes the latency of a link to
// arrive, so that each can be clocked for that long without looking at the others, on any thread.  What happens in which cycle depends neither on
// the windows nor on the threads.  Threads end with the call that began them: the process may be forked between calls.
#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "card.h"

using heddle::Access;
using heddle::Card;
using heddle::Link;
using heddle::LinkTiming;

namespace {
constexpr uint64_t kWindow = 256;       // of a card alone: cycles between two looks for breaches of a protocol
constexpr uint64_t kNever = ~0ull;

std::vector<std::unique_ptr<Link>> links;       // of card c: to its next at 2 * c, to its previous at 2 * c + 1
std::vector<std::unique_ptr<Card>> cards;
uint64_t window = kWindow, number = 0;
unsigned workers = 1;

// Where threads wait for each other; the last to come does something before they go on.
class Meeting {
public:
    Meeting(unsigned size, std::function<void()> then) : size_(size), then_(std::move(then)) {}
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        const uint64_t round = round_;
        if (++here_ == size_) {
            here_ = 0;
            round_++;
            then_();
            all_.notify_all();
        } else {
            all_.wait(lock, [&] { return round_ != round; });
        }
    }

private:
    const unsigned size_;
    const std::function<void()> then_;
    std::mutex mutex_;
    std::condition_variable all_;
    unsigned here_ = 0;
    uint64_t round_ = 0;
};

// Clock all cards until each is settled, for at most so many cycles.  A card alone is not clocked further than that, cards of a ring to the end of a window.
void drive(uint64_t left) {
    uint64_t length = 0;
    const auto plan = [&] {
        const bool settled = std::all_of(cards.begin(), cards.end(), [](const auto& card) { return card->settled(); });
        length = settled ? 0 : std::min(window, left);
        left -= length;
        number++;
    };
    Meeting meeting(workers, plan);
    const auto work = [&](size_t first) {
        while (length) {
            for (size_t k = first; k < cards.size(); k += workers) cards[k]->run(length, number, links.empty());
            meeting.wait();
        }
    };
    plan();
    std::vector<std::thread> threads;
    for (unsigned k = 1; k < workers; k++) threads.emplace_back(work, k);
    work(0);
    for (auto& thread : threads) thread.join();
}
}  // namespace

extern "C" {

void heddle_open(uint32_t beat_bytes, uint64_t seed, const LinkTiming* timing, uint32_t threads) {
    constexpr int count = HEDDLE_CARDS;
    cards.clear();
    links.clear();
    window = kWindow;
    workers = HEDDLE_TRACE ? 1 : std::max(1u, std::min<unsigned>(threads, count));
    for (int k = 0; k < count; k++) cards.push_back(std::make_unique<Card>(k, seed));
    if (count == 1) return;
    for (int k = 0; k < 2 * count; k++) links.push_back(std::make_unique<Link>(*timing, beat_bytes, k));
    for (int k = 0; k < count; k++) {
        cards[k]->join(heddle::kNext, links[2 * k].get(), links[2 * ((k + 1) % count) + 1].get());
        cards[k]->join(heddle::kPrevious, links[2 * k + 1].get(), links[2 * ((k + count - 1) % count)].get());
    }
    window = links[0]->latency();
}

// From that cycle on nothing arrives of what the card sends to its next (side 1) or its previous card (0).
void heddle_cut(uint32_t card, uint32_t side, uint64_t cycle) { links[2 * card + (side == heddle::kPrevious)]->cut(cycle); }

// Give a card accesses to carry out, and carry out those of all cards.
void heddle_begin(uint32_t card, Access* accesses, uint64_t count) { cards[card]->begin(accesses, count); }
void heddle_settle() { drive(kNever); }

// Wait for the interrupt of a card; clock until none is waited for, for at most so many cycles.
void heddle_await(uint32_t card) { cards[card]->await(); }
void heddle_run(uint64_t limit) {
    drive(limit);
    for (auto& card : cards) card->give_up();
}
// How the last wait for a card has ended (card.h, End), and in which cycle.
int heddle_end(uint32_t card) { return cards[card]->end(); }
uint64_t heddle_ended_at(uint32_t card) { return cards[card]->ended_at(); }

uint64_t heddle_cycles() { return cards[0]->cycles(); }
const char* heddle_violation(uint32_t card) { return cards[card]->violation(); }

void heddle_events_record(uint32_t card, uint64_t cycles, uint32_t channels) { cards[card]->record(cycles, channels); }
uint64_t heddle_events_size(uint32_t card) { return cards[card]->events().size(); }
const uint8_t* heddle_events_data(uint32_t card) { return cards[card]->events().data(); }

int heddle_trace(uint32_t card, const char* path) { return cards[card]->trace(path); }
}
