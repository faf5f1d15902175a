//! A recipe: which matrix has which bits and groups, as a TOML file that can be read, edited and used again.
//!
//! ```toml
//! [default]
//! bits = 3
//! group = "64"
//!
//! [matrices]
//! "embedding" = { bits = 4, group = "64" }
//! "layer 0 query" = { bits = 2, group = "32" }
//! ```

use crate::bands::BANDS;
use crate::plan::MatrixFormat;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::matrix::{MOST_RANK, RANK_UNIT};
use rescomp_formats::section::{SectionKind, SectionName, sections};
use rescomp_formats::spec::ModelSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Formats of a model's matrices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of every matrix that is not named.
    pub default: MatrixFormat,
    /// Of matrices by name: `embedding`, `head`, `layer 0 query`, ...
    #[serde(default)]
    pub matrices: BTreeMap<String, MatrixFormat>,
}

/// Why a text is no recipe for a model.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It is not TOML, or has other fields.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// It cannot be written as TOML.
    #[error("{0}")]
    Write(#[from] toml::ser::Error),
    /// A number of bits that no encoding has.
    #[error("{name}: {bits} bits: expected 2, 3, 4, 5, 6 or 8")]
    Bits {
        /// The matrix, or `default`.
        name: String,
        /// The bits found.
        bits: u8,
    },
    /// A group size that no encoding has.
    #[error("{name}: groups of {group}: expected 32, 64, 128 or row")]
    Group {
        /// The matrix, or `default`.
        name: String,
        /// The size found.
        group: String,
    },
    /// A rank that no correction can have.
    #[error("{name}: a correction of rank {rank}: expected a multiple of 32 up to 8160, or 0 for none")]
    Rank {
        /// The matrix, or `default`.
        name: String,
        /// The rank found.
        rank: u32,
    },
    /// A correction of a matrix that is in no block.
    #[error("{name}: a correction of rank {rank}: only matrices of blocks can have one")]
    Corrected {
        /// The matrix.
        name: String,
        /// The rank found.
        rank: u32,
    },
    /// A matrix that the model does not have.
    #[error("the model has no matrix `{name}`; names are like `{like}`")]
    Unknown {
        /// The name found.
        name: String,
        /// Some that there are.
        like: String,
    },
}

impl Recipe {
    /// Reads a recipe for a model.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn parse(text: &str, spec: &ModelSpec) -> Result<Recipe, RecipeError> {
        let recipe: Recipe = toml::from_str(text)?;
        let embedding_bands = if recipe.is_banded() { BANDS as u8 } else { 1 };
        let known = Self::names(&ModelSpec { embedding_bands, ..spec.clone() });
        check("default", recipe.default)?;
        for (name, format) in &recipe.matrices {
            if !known.contains_key(name) {
                let like = known.keys().take(3).cloned().collect::<Vec<_>>().join("`, `");
                return Err(RecipeError::Unknown { name: name.clone(), like });
            }
            check(name, *format)?;
            if format.rank > 0 && !known[name].is_block_matrix() {
                return Err(RecipeError::Corrected { name: name.clone(), rank: format.rank });
            }
        }
        Ok(recipe)
    }

    /// Whether the embedding is divided into bands: where one of them is named.
    pub fn is_banded(&self) -> bool {
        let first = SectionName { kind: SectionKind::Embedding, layer: Some(0) }.to_string();
        let prefix = first.trim_end_matches('0');
        self.matrices.keys().any(|name| name.starts_with(prefix))
    }

    /// As TOML.
    ///
    /// # Errors
    /// [`RecipeError::Write`].
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        Ok(toml::to_string(self)?)
    }

    /// The format of a matrix.
    pub fn format(&self, name: SectionName) -> MatrixFormat {
        let format = self.matrices.get(&name.to_string()).copied().unwrap_or(self.default);
        // A default with a correction is one of the blocks' matrices: no others can have it.
        MatrixFormat { rank: if name.kind.is_block_matrix() { format.rank } else { 0 }, ..format }
    }

    /// Formats of the blocks' matrices, as [`crate::plan::BlockPlan::formats`] has them.
    pub fn block_formats(&self, spec: &ModelSpec) -> BTreeMap<(usize, &'static str), MatrixFormat> {
        let block = |name: SectionName| {
            if name.kind == SectionKind::Embedding {
                return None;
            }
            let layer = usize::from(name.layer?);
            Some(((layer, name.kind.name()), self.format(name)))
        };
        sections(spec).filter(|name| name.kind.is_matrix()).filter_map(block).collect()
    }

    /// A model's matrices by name.
    fn names(spec: &ModelSpec) -> BTreeMap<String, SectionKind> {
        sections(spec)
            .filter(|name| name.kind.is_matrix() && name.kind != SectionKind::HeadInput)
            .map(|name| (name.to_string(), name.kind))
            .collect()
    }
}

fn check(name: &str, format: MatrixFormat) -> Result<(), RecipeError> {
    let name = name.to_owned();
    if CodeWidth::from_bits(format.bits).is_none() {
        return Err(RecipeError::Bits { name, bits: format.bits });
    }
    let group = format.group.to_string();
    if !["32", "64", "128", "row"].contains(&group.as_str()) {
        return Err(RecipeError::Group { name, group });
    }
    if !format.rank.is_multiple_of(RANK_UNIT) || format.rank > MOST_RANK {
        return Err(RecipeError::Rank { name, rank: format.rank });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use std::path::Path;

    fn spec() -> ModelSpec {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m")).unwrap().spec
    }

    #[test]
    fn a_recipe_is_read_back_as_written() {
        let format = |bits, group: &str| MatrixFormat::plain(bits, group.parse().unwrap());
        let matrices = [("embedding", format(6, "row")), ("layer 1 down", format(2, "32"))];
        let recipe = Recipe {
            default: format(3, "64"),
            matrices: matrices.into_iter().map(|(name, format)| (name.to_owned(), format)).collect(),
        };
        let read = Recipe::parse(&recipe.to_toml().unwrap(), &spec()).unwrap();
        assert_eq!(read, recipe);
        let formats = read.block_formats(&spec());
        assert_eq!(formats.len(), 42);
        assert_eq!(formats[&(1, "down")], format(2, "32"));
        assert!(!read.is_banded());
        assert_eq!(formats[&(0, "down")], format(3, "64"));
        let embedding = SectionName { kind: SectionKind::Embedding, layer: None };
        assert_eq!(read.format(embedding), format(6, "row"));
    }

    #[test]
    fn bands_have_formats_of_their_own() {
        let text = "default = { bits = 3, group = \"64\" }\n[matrices]\n\"embedding band 2\" = { bits = 5, group = \"32\" }\n";
        let recipe = Recipe::parse(text, &spec()).unwrap();
        assert!(recipe.is_banded());
        let bits = |layer| recipe.format(SectionName { kind: SectionKind::Embedding, layer }).bits;
        assert_eq!((bits(Some(1)), bits(Some(2))), (3, 5));
        assert_eq!(recipe.block_formats(&spec()).len(), 42);
        // All of an embedding is divided, or nothing is.
        let wrong = ["embedding band 4", "embedding band 0\" = { bits = 2, group = \"64\" }\n\"embedding"];
        for name in wrong {
            let text = text.replace("embedding band 2", name);
            assert!(matches!(Recipe::parse(&text, &spec()), Err(RecipeError::Unknown { .. })), "{text}");
        }
    }

    #[test]
    fn what_is_no_recipe_is_refused_by_name() {
        let default = "[default]\nbits = 3\ngroup = \"64\"\n";
        let refused = |text: &str| Recipe::parse(text, &spec()).unwrap_err().to_string();
        for (text, expected) in [
            ("".to_owned(), "default"),
            (default.replace('3', "7"), "default: 7 bits: expected 2, 3, 4, 5, 6 or 8"),
            (default.replace("64", "48"), "default: groups of 48: expected 32, 64, 128 or row"),
            (default.replace("64", "zero"), "zero"),
            (format!("size = 3\n{default}"), "size"),
            (format!("{default}size = 3\n"), "size"),
            (
                format!("{default}[matrices]\n\"layer 9 up\" = {{ bits = 2, group = \"32\" }}\n"),
                "no matrix `layer 9 up`",
            ),
            (
                format!("{default}[matrices]\n\"embedding\" = {{ bits = 7, group = \"32\" }}\n"),
                "embedding: 7 bits",
            ),
        ] {
            let found = refused(&text);
            assert!(found.contains(expected), "{text:?}: {found}");
        }
    }
}
