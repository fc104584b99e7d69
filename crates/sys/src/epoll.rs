//! epoll, signalfd, timerfd and eventfd for single-threaded loops.
