//! A pool of threads as an [`Executor`].
//!
//! A decode step runs a hundred or more short parallel parts, so handing one out takes no lock and no system call where the workers
//! are awake: they spin briefly for the next part before they park. The split of tasks over threads is static: share `t` of `n` is tasks
//! `t * tasks / n ..`, and thread `t` runs it, so that it meets the same weights each time.
//!
//! A share that its thread has not begun when the calling thread is done with its own is run by the calling thread. So a part waits for
//! nobody who isn't running: not for a worker that is being woken, nor for one whose processor another program has.
#![allow(unsafe_code, reason = "a task is borrowed by other threads for the time of a call")]

use crate::executor::{Executor, split};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// How long a thread looks out for others before it parks. Longer than the work between two parallel parts of a decode step, and
/// than a wake-up takes.
const SPIN_TIME: Duration = Duration::from_micros(50);
/// Looks between two at the clock.
const SPINS_PER_CLOCK: usize = 32;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// One call of [`Executor::run`].
struct Job<'a> {
    tasks: usize,
    task: &'a Task<'a>,
}

/// Something on cache lines of its own: two, since processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct OwnLine<T>(T);

/// What the calling thread and one worker tell each other.
#[derive(Default)]
struct Post {
    /// The number of the last job whose share for this worker somebody has begun: each job's share is begun once, so this counts
    /// up by one a job.
    begun: AtomicUsize,
    parked: AtomicBool,
}

#[derive(Default)]
struct Announcement {
    /// The number of the last job. It counts up, and at the end once more.
    number: AtomicUsize,
    /// That job, valid until every share is done.
    job: AtomicPtr<Job<'static>>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Results {
    /// Shares of the last job that workers have done.
    done: AtomicUsize,
    /// The calling thread wants to be woken.
    caller_parked: AtomicBool,
}

#[derive(Default)]
struct Shared {
    announcement: OwnLine<Announcement>,
    results: OwnLine<Results>,
    /// For worker `index + 1`.
    posts: Vec<OwnLine<Post>>,
    /// The thread to wake where `caller_parked`.
    caller: Mutex<Option<Thread>>,
    /// What a worker's task panicked with; the first one.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A panic never happens under these locks, so a poisoned one would still hold a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spins until `done`, but not for long; whether it is.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..SPINS_PER_CLOCK {
            if done() {
                return true;
            }
            core::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN_TIME {
            return false;
        }
    }
}

/// Parks until `done`. Whoever makes `done` true then looks at `parked`, and wakes this thread where it is set: as all of these
/// operations are sequentially consistent, either it sees `parked`, or this thread sees `done`.
fn park_until(parked: &AtomicBool, done: impl Fn() -> bool) {
    loop {
        // A swap and not a store: an emulator of ARM may let the load that follows overtake a store (release), and with it the wake-up.
        parked.swap(true, Ordering::SeqCst);
        if done() {
            parked.store(false, Ordering::SeqCst);
            return;
        }
        std::thread::park();
    }
}

impl Shared {
    fn post(&self, worker: usize) -> &Post {
        &self.posts[worker - 1].0
    }

    /// The right to run the share of `worker` in job `number`, given once.
    fn begin(&self, worker: usize, number: usize) -> bool {
        let before = number.wrapping_sub(1);
        let begun = &self.post(worker).begun;
        begun.compare_exchange(before, number, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Wakes the calling thread where it waits.
    fn wake_caller(&self) {
        if self.results.0.caller_parked.swap(false, Ordering::SeqCst)
            && let Some(caller) = &*lock(&self.caller)
        {
            caller.unpark();
        }
    }
}

/// Threads that wait for work: the calling thread and `threads - 1` others.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the call that uses the workers.
    in_use: Mutex<()>,
}

impl core::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

impl ThreadPool {
    /// A pool of `threads`, the calling one included; 0 counts as 1.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::with_start(threads, |_| Ok(()))
    }

    /// A pool whose workers, threads `1 ..` of `threads`, each begin with `start` of their number, to be pinned to a processor for example.
    ///
    /// # Errors
    /// Where the system refuses a thread, or the first that `start` gives.
    pub fn with_start(
        threads: usize,
        start: impl Fn(usize) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let start = Arc::new(start);
        let (started, starts) = mpsc::channel();
        let posts = (1..threads).map(|_| OwnLine::default()).collect();
        let shared = Arc::new(Shared { posts, ..Shared::default() });
        let mut pool = ThreadPool { shared, workers: Vec::new(), in_use: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let (start, started) = (Arc::clone(&start), started.clone());
            let begin = move || {
                // A worker that couldn't start works all the same: the pool that it belongs to is given up, and ends it.
                let _ = started.send(start(index));
                drop(started);
                work(&shared, index, threads);
            };
            let worker = std::thread::Builder::new().name(std::format!("rescomp-{index}")).spawn(begin)?;
            pool.workers.push(worker);
        }
        drop(started);
        starts.iter().collect::<std::io::Result<()>>()?;
        Ok(pool)
    }

    /// Tells the workers that job `number` is there, or the end.
    fn announce(&self, number: usize) {
        self.shared.announcement.0.number.store(number, Ordering::SeqCst);
        for (post, worker) in self.shared.posts.iter().zip(&self.workers) {
            if post.0.parked.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let announcement = &self.shared.announcement.0;
        announcement.stopping.store(true, Ordering::SeqCst);
        self.announce(announcement.number.load(Ordering::SeqCst).wrapping_add(1));
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, and there is nobody left to tell of another one.
            let _ = worker.join();
        }
    }
}

/// What worker `index` of `threads` does.
fn work(shared: &Shared, index: usize, threads: usize) {
    let announcement = &shared.announcement.0;
    let mut seen = 0;
    loop {
        let announced = || announcement.number.load(Ordering::SeqCst) != seen;
        if !spin_until(announced) {
            park_until(&shared.post(index).parked, announced);
        }
        seen = announcement.number.load(Ordering::SeqCst);
        if announcement.stopping.load(Ordering::SeqCst) {
            return;
        }
        if !shared.begin(index, seen) {
            // Another thread has begun this share, and the job may have ended since.
            continue;
        }
        let job = announcement.job.load(Ordering::Acquire);
        // SAFETY: the job was announced with the number `seen` and lives until every share of it is done, this one included, which
        // this worker alone has begun.
        let job = unsafe { &*job };
        if let Err(payload) = run_share(job, threads, index) {
            lock(&shared.panic).get_or_insert(payload);
        }
        shared.results.0.done.fetch_add(1, Ordering::SeqCst);
        shared.wake_caller();
    }
}

/// Runs the tasks of thread `index`. A panic ends this thread's share only, and is handed back.
fn run_share(job: &Job<'_>, threads: usize, index: usize) -> std::thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        (split(job.tasks, threads, index)..split(job.tasks, threads, index + 1)).for_each(job.task);
    }))
}

// SAFETY: the shares of the threads partition the indices, and each is run by the thread that has begun it: the calling thread its
// own, and of the others each either its worker or the calling thread. `run` returns or unwinds only after `done` has reached the
// number of shares that workers have begun, which each worker raises once, after its share. A panic drops the rest of a share, and
// then `run` unwinds.
unsafe impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs on the calling thread alone where there is one task, or where the workers are in use: by another thread, or by a
    /// task that calls again.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        let in_use = match self.in_use.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                (0..tasks).for_each(task);
                return;
            }
        };
        let Shared { announcement, results, .. } = &*self.shared;
        let (announcement, results) = (&announcement.0, &results.0);
        let threads = self.threads();
        let job = Job { tasks, task };
        announcement.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        results.done.store(0, Ordering::SeqCst);
        let number = announcement.number.load(Ordering::SeqCst).wrapping_add(1);
        self.announce(number);
        let mut result = run_share(&job, threads, 0);
        let mut begun_by_workers = 0;
        for worker in 1..threads {
            if self.shared.begin(worker, number) {
                result = result.and(run_share(&job, threads, worker));
            } else {
                begun_by_workers += 1;
            }
        }
        let all_done = || results.done.load(Ordering::SeqCst) == begun_by_workers;
        if !spin_until(all_done) {
            *lock(&self.shared.caller) = Some(std::thread::current());
            park_until(&results.caller_parked, all_done);
        }
        let panic = lock(&self.shared.panic).take();
        drop(in_use);
        if let Some(payload) = result.err().or(panic) {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::vec;

    #[test]
    fn each_task_runs_once_on_any_number_of_threads() {
        for threads in 0..5 {
            let pool = ThreadPool::new(threads).expect("threads");
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in (0..20).chain([1000]) {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, &|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn workers_begin_with_their_start_and_its_error_ends_the_pool() {
        let started: Arc<Mutex<Vec<usize>>> = Arc::default();
        let numbers = Arc::clone(&started);
        let pool = ThreadPool::with_start(4, move |index| {
            lock(&numbers).push(index);
            Ok(())
        });
        assert_eq!(pool.expect("threads").threads(), 4);
        lock(&started).sort_unstable();
        assert_eq!(*lock(&started), [1, 2, 3]);

        let refuse = |index| if index == 2 { Err(std::io::Error::other("no")) } else { Ok(()) };
        let error = ThreadPool::with_start(4, refuse).map(|_| ()).expect_err("refused");
        assert_eq!(std::format!("{error}"), "no");
    }

    #[test]
    fn many_short_jobs_and_parked_workers() {
        let pool = ThreadPool::new(3).expect("threads");
        let total = AtomicUsize::new(0);
        for round in 0..2000 {
            pool.run(3, &|index| {
                total.fetch_add(index, Ordering::Relaxed);
            });
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        assert_eq!(total.load(Ordering::Relaxed), 6000);
    }

    #[test]
    fn a_panic_reaches_the_caller_from_any_thread_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3).expect("threads");
        for bad in 0..6 {
            let ended = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(6, &|index| {
                    if index == bad {
                        // Without the hook's message, which would look like a failure.
                        resume_unwind(Box::new(index));
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }));
            assert_eq!(result.expect_err("a panic").downcast_ref::<usize>(), Some(&bad));
            // The other two threads ran their shares of two.
            assert!(ended.load(Ordering::Relaxed) >= 4);
            let sum = AtomicUsize::new(0);
            pool.run(6, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 15);
        }
    }

    #[test]
    fn calls_from_tasks_and_from_other_threads_complete() {
        let pool = ThreadPool::new(2).expect("threads");
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, &|_| {
                            pool.run(3, &|_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 100 * 12);
    }

    #[test]
    fn row_shares_work_on_a_pool() {
        let pool = ThreadPool::new(3).expect("threads");
        let mut output = vec![0.0; 2 * 50];
        let mut views = [crate::kernels::OutputRows::new(&mut output, 2, 50)];
        crate::executor::for_each_row_share(&pool, &mut views, 16, 3, |shares| {
            let [share] = shares else { panic!("{} shares of one output", shares.len()) };
            for token in 0..2 {
                for (row, value) in share.range.clone().zip(share.rows.token_rows(token)) {
                    *value = row as f32;
                }
            }
        });
        let expected: Vec<f32> = (0..100).map(|i| (i % 50) as f32).collect();
        assert_eq!(output, expected);
    }
}
