//! What a decoder's keys and values are kept as, on the command line.

use clap::ValueEnum;
use rescomp_formats::cache_format::CacheFormat;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvCache {
    /// Binary16 numbers.
    F16,
    /// int8 codes with a scale for each position and head: half of the memory, and less to compute.
    Int8,
}

impl From<KvCache> for CacheFormat {
    fn from(cache: KvCache) -> CacheFormat {
        match cache {
            KvCache::F16 => CacheFormat::Binary16,
            KvCache::Int8 => CacheFormat::Int8,
        }
    }
}
