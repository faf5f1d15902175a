//! Every file of `tests/data/hostile` is refused with the error that the manifest names, quickly, and nothing panics; reading containers and
//! tokenizer sections allocates nothing. The files are those that the generator makes.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]
#![allow(unsafe_code, reason = "an allocator that counts is one, and implementing it is unsafe")]

use conformance::hostile::{self, Manifest, refusal};
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::tokenizer::TokenizerView;
use rescomp_runtime::memory::AlignedBytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on unchanged to the system's allocator, whose promises are these; the counter is a plain number of the
// thread, which needs no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `work` returns, and how often it asked for memory.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let made = work();
    (made, ALLOCATIONS.get() - before)
}

/// Time for a file, where the machine does nothing else; a busy one gets more.
const LIMIT: Duration = Duration::from_millis(100);

fn manifest() -> Manifest {
    toml::from_str(&std::fs::read_to_string(hostile::folder().join("manifest.toml")).unwrap()).unwrap()
}

#[test]
fn the_files_are_what_the_generator_makes() {
    let (files, manifest) = (hostile::files(), manifest());
    let names: BTreeSet<&str> = files.iter().map(|file| file.name).collect();
    assert_eq!(names.len(), files.len(), "a name for each file");
    assert!(names.iter().copied().eq(manifest.keys().map(String::as_str)), "an entry for each file");
    assert!(files.len() >= 80, "{} files", files.len());
    for file in files {
        let stored = std::fs::read(hostile::folder().join(file.name)).unwrap();
        assert!(stored == file.bytes, "{} differs from what is generated", file.name);
        let entry = &manifest[file.name];
        assert_eq!((entry.attack.as_str(), entry.offset), (file.attack, file.offset), "{}", file.name);
    }
}

#[test]
fn every_file_is_refused_with_its_error_and_in_time() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, entry) in manifest() {
        let bytes = std::fs::read(hostile::folder().join(&name)).unwrap();
        // The least of some tries: other programs may run.
        let mut least = Duration::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            let error = refusal(&name, &bytes, scratch.path());
            least = least.min(start.elapsed());
            assert_eq!(error.as_deref(), Some(entry.error.as_str()), "{name}: {}", entry.attack);
            if least < LIMIT {
                break;
            }
        }
        assert!(least < LIMIT, "{name}: {least:?}");
        if let Some(offset) = entry.offset {
            let place = format!("byte {offset}");
            let named = entry.error.match_indices(&place).any(|(at, _)| {
                !entry.error[at + place.len()..].starts_with(|next: char| next.is_ascii_digit())
            });
            assert!(named, "{name}: {place} in {}", entry.error);
        }
    }
}

#[test]
fn the_runtimes_formats_are_read_without_memory() {
    let (_, counted) = allocations(|| vec![1_u8]);
    assert_eq!(counted, 1, "the counter counts");
    let mut read = 0;
    for name in manifest().keys() {
        let bytes = std::fs::read(hostile::folder().join(name)).unwrap();
        let file = AlignedBytes::new(&bytes);
        let (refused, counted) = match name.split('/').next() {
            Some("container") => allocations(|| {
                Container::open(&file).and_then(|container| container.check(Integrity::Digest)).is_err()
            }),
            Some("tokenizer-section") => allocations(|| TokenizerView::parse(&bytes).is_err()),
            _ => continue,
        };
        assert!(refused && counted == 0, "{name}: {counted} allocations");
        read += 1;
    }
    assert!(read > 80, "{read}");
    for (name, bytes) in hostile::sound_files() {
        if name.starts_with("container/") {
            let file = AlignedBytes::new(&bytes);
            let check =
                || Container::open(&file).and_then(|container| container.check(Integrity::Digest)).is_ok();
            assert_eq!(allocations(check), (true, 0), "{name}");
        }
    }
}

#[test]
fn the_sound_files_are_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, bytes) in hostile::sound_files() {
        assert_eq!(refusal(name, &bytes, scratch.path()), None, "{name}");
    }
}
