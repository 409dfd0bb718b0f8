#include "stream.h"

#include <chrono>
#include <thread>

#include "trap.h"

namespace stand_in {

std::atomic<unsigned> delay_us = 0;

namespace {

std::mutex hold_mutex;
std::condition_variable hold_changed;
bool held = false;

}  // namespace

void hold(bool on) {
  const std::lock_guard lock(hold_mutex);
  held = on;
  hold_changed.notify_all();
}

void Moment::pass() {
  const std::lock_guard lock(mutex_);
  passed_ = true;
  changed_.notify_all();
}

void Moment::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return passed_.load(); });
}

std::shared_ptr<Stream> Stream::create(uint64_t seed) {
  auto stream = std::make_shared<Stream>();
  stream->random_ = seed;
  std::thread([stream] { stream->run(); }).detach();  // closed, or ended with the process
  return stream;
}

void Stream::enqueue(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_ || busy_ || !waiting_.empty()) {
      waiting_.push_back(std::move(work));
      changed_.notify_one();
      return;
    }
  }
  work();  // its thread has ended, and all that was enqueued is done
}

std::shared_ptr<Moment> Stream::mark() {
  auto moment = std::make_shared<Moment>();
  enqueue([moment] { moment->pass(); });
  return moment;
}

bool Stream::idle() {
  const std::lock_guard lock(mutex_);
  return waiting_.empty() && !busy_;
}

void Stream::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_one();
}

void Stream::run() {
  give_signal_stack();
  for (;;) {
    Work work;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      changed_.wait(lock, [this] { return !waiting_.empty() || closed_; });
      if (waiting_.empty()) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
      busy_ = true;
    }
    if (const unsigned longest = delay_us) {
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      std::this_thread::sleep_for(std::chrono::microseconds((random_ >> 33) % (longest + 1)));
    }
    {
      std::unique_lock lock(hold_mutex);
      hold_changed.wait(lock, [] { return !held; });
    }
    work();
  }
}

}  // namespace stand_in
