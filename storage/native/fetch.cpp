#include "fetch.h"

#include <stdexcept>

namespace ff {

Fetcher::Fetcher(std::function<void(Fetch&)> carry_out, std::function<void(bool done)> ended)
    : carry_out_(std::move(carry_out)), ended_(std::move(ended)), thread_([this] { run(); }) {}

uint64_t Fetcher::push(Fetch&& fetch) {
  std::lock_guard<std::mutex> lock(mutex_);
  queue_.push_back(std::move(fetch));
  changed_.notify_all();
  return ++pushed_;
}

uint64_t Fetcher::pushed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pushed_;
}

uint64_t Fetcher::done() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return done_;
}

void Fetcher::wait(uint64_t number) const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number || error_ || closing_; });
  if (error_) std::rethrow_exception(error_);
  if (done_ < number) throw std::runtime_error("Pad: closed while rows were being fetched");
}

void Fetcher::finish(uint64_t number) const {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number || (!busy_ && (error_ || closing_)); });
}

void Fetcher::check() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

void Fetcher::fail(std::exception_ptr error) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_) error_ = std::move(error);
  changed_.notify_all();
}

void Fetcher::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Fetcher::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return closing_ || (!queue_.empty() && !error_); });
    if (closing_) return;
    Fetch fetch = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    std::exception_ptr error;
    try {
      carry_out_(fetch);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    if (error && !error_) error_ = error;
    if (!error) ++done_;
    changed_.notify_all();
    lock.unlock();
    ended_(!error);
    lock.lock();
  }
}

}  // namespace ff
