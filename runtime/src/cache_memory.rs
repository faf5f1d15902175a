//! The keys and values of all layers of a session, in the format that its container asks for.

use crate::error::RuntimeError;
use crate::memory::{Arena, slice_bytes};
use crate::models::{CacheElem, KeptMut, LayerCache, cache_elems, scale_elems};
use crate::parts::{Part, cache_part};
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::spec::ModelSpec;

/// Keys and values of all layers.
#[derive(Debug)]
pub(crate) enum CacheMemory<'a> {
    /// The bits of binary16 numbers.
    Binary16(Layers<'a, u16>),
    /// Codes and scales.
    Int8(Layers<'a, i8>),
}

impl<'a> CacheMemory<'a> {
    /// Bytes that [`CacheMemory::carve`] takes.
    ///
    /// # Errors
    /// [`RuntimeError::NotBuilt`].
    pub(crate) fn bytes(format: CacheFormat, spec: &ModelSpec, context: usize) -> Result<u64, RuntimeError> {
        match format {
            CacheFormat::Binary16 if Part::CacheF16.is_built() => Ok(Layers::<u16>::bytes(spec, context)),
            CacheFormat::Int8 if Part::CacheInt8.is_built() => Ok(Layers::<i8>::bytes(spec, context)),
            _ => Err(not_built(format)),
        }
    }

    /// Takes the memory.
    ///
    /// # Errors
    /// [`RuntimeError::NotBuilt`].
    pub(crate) fn carve(
        format: CacheFormat,
        spec: &ModelSpec,
        context: usize,
        arena: &mut Arena<'a>,
    ) -> Result<Self, RuntimeError> {
        match format {
            CacheFormat::Binary16 if Part::CacheF16.is_built() => {
                Ok(CacheMemory::Binary16(Layers::carve(spec, context, arena)))
            }
            CacheFormat::Int8 if Part::CacheInt8.is_built() => {
                Ok(CacheMemory::Int8(Layers::carve(spec, context, arena)))
            }
            _ => Err(not_built(format)),
        }
    }
}

/// The error of a format whose part isn't there.
pub(crate) fn not_built(format: CacheFormat) -> RuntimeError {
    RuntimeError::NotBuilt { part: cache_part(format).feature() }
}

/// Keys and values of all layers as numbers of one type, layer after layer.
#[derive(Debug)]
pub(crate) struct Layers<'a, S> {
    keys: KeptMut<'a, S>,
    values: KeptMut<'a, S>,
}

impl<'a, S: CacheElem> Layers<'a, S> {
    /// Numbers and scales of the keys (and of the values) of one layer.
    fn of_layer(spec: &ModelSpec, context: usize) -> [u64; 2] {
        [cache_elems::<S>(spec, context), scale_elems::<S>(spec, context)]
    }

    fn bytes(spec: &ModelSpec, context: usize) -> u64 {
        let [numbers, scales] =
            Self::of_layer(spec, context).map(|elems| elems.saturating_mul(spec.layers.into()));
        slice_bytes::<S>(numbers).saturating_add(slice_bytes::<f32>(scales)).saturating_mul(2)
    }

    fn carve(spec: &ModelSpec, context: usize, arena: &mut Arena<'a>) -> Self {
        let [numbers, scales] =
            Self::of_layer(spec, context).map(|elems| elems as usize * spec.layers as usize);
        let mut take = || KeptMut { numbers: arena.take(numbers), scales: arena.take(scales) };
        Layers { keys: take(), values: take() }
    }

    /// Those of one layer.
    pub(crate) fn layer(&mut self, spec: &ModelSpec, context: usize, layer: usize) -> LayerCache<'_, S> {
        let own =
            Self::of_layer(spec, context).map(|elems| layer * elems as usize..(layer + 1) * elems as usize);
        LayerCache { keys: self.keys.part(own.clone()), values: self.values.part(own) }
    }
}
