//! A pool of threads as an [`Executor`].
//!
//! A decode step runs hundreds of short parallel parts, so workers spin briefly for the next part before they park. The split
//! of tasks over threads is static: thread `t` of `n` runs tasks `t * tasks / n ..`, so that it meets the same weights each time.
#![allow(unsafe_code, reason = "a task is borrowed by other threads for the time of a call")]

use crate::executor::{Executor, split};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::vec::Vec;

/// Looks at the next part this many times before parking: some tens of microseconds.
const SPINS: usize = 4096;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// One call of [`Executor::run`].
#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// Valid until every worker has reported that it is done with it, which `run` waits for.
    task: &'static Task<'static>,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// What a worker's task panicked with; the first one.
    panic: Option<Box<dyn Any + Send>>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Counts jobs (and the end); changed under `state`'s lock.
    generation: AtomicUsize,
    /// Workers still busy with the job; falls to zero under `state`'s lock.
    busy: AtomicUsize,
    /// Signalled at a new generation.
    started: Condvar,
    /// Signalled when `busy` falls to zero.
    finished: Condvar,
}

impl Shared {
    /// A panic never happens under this lock, so a poisoned one would still hold a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spins, then parks, until `done`. `signal` must be notified under the lock, or after it, whenever `done` becomes true.
    fn wait(&self, signal: &Condvar, done: impl Fn() -> bool) -> MutexGuard<'_, State> {
        for _ in 0..SPINS {
            if done() {
                break;
            }
            core::hint::spin_loop();
        }
        signal.wait_while(self.lock(), |_| !done()).unwrap_or_else(PoisonError::into_inner)
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
        let shared = Arc::new(Shared::default());
        let threads = threads.max(1);
        let mut pool = ThreadPool { shared, workers: Vec::new(), in_use: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(std::format!("rescomp-{index}"))
                .spawn(move || work(&shared, index, threads))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        self.shared.generation.fetch_add(1, Ordering::Release);
        drop(state);
        self.shared.started.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, and there is nobody left to tell of another one.
            let _ = worker.join();
        }
    }
}

/// What worker `index` of `threads` does.
fn work(shared: &Shared, index: usize, threads: usize) {
    let mut seen = 0;
    loop {
        let state = shared.wait(&shared.started, || shared.generation.load(Ordering::Acquire) != seen);
        if state.stopping {
            return;
        }
        // Generations can't be skipped: the next job begins after this worker has reported the end of this one.
        seen = shared.generation.load(Ordering::Acquire);
        let job = state.job;
        drop(state);
        let result = job.map_or(Ok(()), |job| run_share(job.tasks, job.task, threads, index));
        let mut state = shared.lock();
        if let Err(payload) = result {
            state.panic.get_or_insert(payload);
        }
        if shared.busy.fetch_sub(1, Ordering::Release) == 1 {
            drop(state);
            shared.finished.notify_one();
        }
    }
}

/// Runs the tasks of thread `index`. A panic ends this thread's share only, and is handed back.
fn run_share(tasks: usize, task: &Task<'_>, threads: usize, index: usize) -> std::thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        (split(tasks, threads, index)..split(tasks, threads, index + 1)).for_each(task);
    }))
}

// SAFETY: the shares of the threads partition the indices; `run` returns or unwinds only after `busy` has fallen to zero, which
// each worker lowers once, after its share. A panic drops the rest of a share, and then `run` unwinds.
unsafe impl Executor for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs on the calling thread alone where there is one task, or where the workers are in use: by another thread, or by a
    /// task that calls again.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let in_use = match self.in_use.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if tasks <= 1 || self.workers.is_empty() || in_use.is_none() {
            (0..tasks).for_each(task);
            return;
        }
        // SAFETY: the reference outlives its use: this function doesn't end before `busy` is zero, and the job is removed then.
        let task_for_workers = unsafe { core::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        let shared = &*self.shared;
        let mut state = shared.lock();
        state.job = Some(Job { tasks, task: task_for_workers });
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.generation.fetch_add(1, Ordering::Release);
        drop(state);
        shared.started.notify_all();
        let own = run_share(tasks, task, self.threads(), 0);
        let mut state = shared.wait(&shared.finished, || shared.busy.load(Ordering::Acquire) == 0);
        state.job = None;
        let panic = own.err().or(state.panic.take());
        state.panic = None;
        drop(state);
        drop(in_use);
        if let Some(payload) = panic {
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
    fn row_ranges_work_on_a_pool() {
        let pool = ThreadPool::new(3).expect("threads");
        let mut output = vec![0.0; 2 * 50];
        crate::executor::for_each_row_range(&pool, &mut output, 2, 50, 16, |range, mut part| {
            for token in 0..2 {
                for row in (0..range.len()).step_by(8) {
                    part.store(token, row, &core::array::from_fn(|lane| (range.start + row + lane) as f32));
                }
            }
        });
        let expected: Vec<f32> = (0..100).map(|i| (i % 50) as f32).collect();
        assert_eq!(output, expected);
    }
}
