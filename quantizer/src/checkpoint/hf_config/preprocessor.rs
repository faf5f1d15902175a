//! `preprocessor_config.json`: how an image file becomes what a classifier reads.
//!
//! ```text
//! do_resize, size, resample        the whole image to this size
//! do_center_crop, crop_size        its middle
//! do_rescale, rescale_factor       bytes times this
//! do_normalize, image_mean, ..std  less this, over this, by channel
//! ```
//! What is absent is the default of the processor's class in transformers (`ViTImageProcessor`, `DeiTImageProcessor`).

use std::path::Path;

use rescomp_formats::image_input::{CHANNELS, Filter, ImageInput, Resize};
use rescomp_formats::spec::{ModelSpec, Output};
use serde_json::{Map, Value};

use super::super::{CheckpointError, read_capped};
use super::MAX_CONFIG_BYTES;
use super::fields::{Fields, brief};

/// The file.
const NAME: &str = "preprocessor_config.json";
/// Most pixels of an edge.
const MAX_EDGE: u32 = 4096;

/// What absent fields mean.
struct Defaults {
    size: u32,
    /// The number of a filter, as PIL has it.
    resample: u32,
    center_crop: bool,
}

const VIT: Defaults = Defaults { size: 224, resample: 2, center_crop: false };
const DEIT: Defaults = Defaults { size: 256, resample: 3, center_crop: true };
const CROP: u32 = 224;

/// Completes the spec of a classifier by the file beside its `config.json`.
///
/// # Errors
/// The file is not there or cannot be read, or asks for something that this crate does not do; or for images of another size than the model's.
pub(in super::super) fn complete(folder: &Path, spec: &mut ModelSpec) -> Result<(), CheckpointError> {
    let Output::Classes(image) = &mut spec.output else { return Ok(()) };
    let path = folder.join(NAME);
    let text = read_capped(&path, MAX_CONFIG_BYTES)?;
    let json = |cause| CheckpointError::Json { path: path.clone(), part: "whole file", cause };
    let object: Map<String, Value> = serde_json::from_slice(&text).map_err(json)?;
    read(&Fields { path: &path, prefix: "", object: &object }, image)
}

fn read(fields: &Fields<'_>, image: &mut ImageInput) -> Result<(), CheckpointError> {
    let defaults = defaults(fields)?;
    let resizes = fields.flag_or("do_resize", true)?;
    let crops = fields.flag_or("do_center_crop", defaults.center_crop)?;
    let size = edges(fields, "size", defaults.size)?;
    let crop = edges(fields, "crop_size", CROP)?;
    if crops && !resizes {
        return Err(fields.unsupported("do_center_crop", "true without do_resize", "true with it"));
    }
    let (field, [height, width]) = if crops { ("crop_size", crop) } else { ("size", size) };
    if resizes && [height, width] != [image.height, image.width] {
        let expected = format!(
            "{} x {}, the model's image_size (positions are not interpolated)",
            image.height, image.width
        );
        return Err(fields.wrong(field, expected, format!("{height} x {width}")));
    }
    if resizes && (size[0] < height || size[1] < width) {
        let expected = format!("{height} x {width} or more, crop_size");
        return Err(fields.wrong("size", expected, format!("{} x {}", size[0], size[1])));
    }
    let filter = match fields.whole("resample", 1 << 16)?.unwrap_or(defaults.resample) {
        2 => Filter::Bilinear,
        3 => Filter::Bicubic,
        other => {
            return Err(fields.unsupported("resample", &other.to_string(), "2 (bilinear), 3 (bicubic)"));
        }
    };
    let number = |name: &str, value: f64, positive: bool| {
        let narrowed = value as f32;
        let fits = if positive { (1e-6..=1e6).contains(&narrowed) } else { narrowed.abs() <= 1e6 };
        let expected = if positive { "a number from 1e-6 to 1e6" } else { "a number from -1e6 to 1e6" };
        if fits { Ok(narrowed) } else { Err(fields.wrong(name, expected.into(), value)) }
    };
    image.resize = resizes.then_some(Resize { height: size[0], width: size[1], filter });
    image.rescale = match fields.flag_or("do_rescale", true)? {
        true => number("rescale_factor", fields.number("rescale_factor")?.unwrap_or(1.0 / 255.0), true)?,
        false => 1.0,
    };
    (image.mean, image.deviation) = match fields.flag_or("do_normalize", true)? {
        true => {
            (channels(fields, "image_mean", false, number)?, channels(fields, "image_std", true, number)?)
        }
        false => ([0.0; CHANNELS as usize], [1.0; CHANNELS as usize]),
    };
    Ok(())
}

/// The defaults of the processor's class.
fn defaults(fields: &Fields<'_>) -> Result<Defaults, CheckpointError> {
    let key =
        ["image_processor_type", "feature_extractor_type"].into_iter().find(|key| fields.get(key).is_some());
    let Some(key) = key else {
        let expected = "ViTImageProcessor or DeiTImageProcessor";
        return Err(fields.wrong("image_processor_type", expected.into(), "nothing"));
    };
    let name = fields.text(key)?.unwrap_or_default();
    let stem = ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"]
        .into_iter()
        .find_map(|end| name.strip_suffix(end));
    match stem {
        Some("ViT") => Ok(VIT),
        Some("DeiT") => Ok(DEIT),
        _ => Err(fields.unsupported(key, name, "ViTImageProcessor, DeiTImageProcessor")),
    }
}

/// Height and width: a number where they are the same, or an object.
fn edges(fields: &Fields<'_>, name: &'static str, default: u32) -> Result<[u32; 2], CheckpointError> {
    if !matches!(fields.get(name), Some(Value::Object(_))) {
        return Ok([fields.optional_size(name, MAX_EDGE)?.unwrap_or(default); 2]);
    }
    let inner = fields.inner(name, name)?;
    match (inner.optional_size("height", MAX_EDGE)?, inner.optional_size("width", MAX_EDGE)?) {
        (Some(height), Some(width)) if inner.object.len() == 2 => Ok([height, width]),
        _ => {
            let found = fields.get(name).map_or_else(String::new, brief);
            Err(fields.unsupported(name, &found, "height and width, or one number for both"))
        }
    }
}

/// A number a channel; 0.5 where nothing is said.
fn channels(
    fields: &Fields<'_>,
    name: &str,
    positive: bool,
    number: impl Fn(&str, f64, bool) -> Result<f32, CheckpointError>,
) -> Result<[f32; CHANNELS as usize], CheckpointError> {
    let Some(value) = fields.get(name) else { return Ok([0.5; CHANNELS as usize]) };
    let wrong = || fields.wrong(name, "a list of 3 numbers".into(), brief(value));
    let list = value.as_array().filter(|list| list.len() == CHANNELS as usize).ok_or_else(wrong)?;
    let mut channels = [0.0; CHANNELS as usize];
    for (channel, value) in channels.iter_mut().zip(list) {
        *channel = number(name, value.as_f64().ok_or_else(wrong)?, positive)?;
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of a model that reads 32 x 32 pixels.
    fn completed(value: Value) -> Result<ImageInput, String> {
        let mut image = ImageInput {
            height: 32,
            width: 32,
            patch: 8,
            tokens_before: 1,
            head_tokens: 1,
            rescale: 1.0,
            mean: [0.0; 3],
            deviation: [1.0; 3],
            resize: None,
        };
        let object = value.as_object().unwrap();
        let fields = Fields { path: Path::new(NAME), prefix: "", object };
        read(&fields, &mut image).map(|()| image).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_classes_have_is_what_absent_fields_mean() {
        let vit = completed(json!({ "image_processor_type": "ViTImageProcessor", "size": 32 })).unwrap();
        let resize = |edge, filter| Some(Resize { height: edge, width: edge, filter });
        assert_eq!((vit.resize, vit.rescale), (resize(32, Filter::Bilinear), 1.0 / 255.0));
        assert_eq!((vit.mean, vit.deviation), ([0.5; 3], [0.5; 3]));
        let old = json!({
            "feature_extractor_type": "DeiTFeatureExtractor", "size": 40, "crop_size": 32,
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        });
        let deit = completed(old).unwrap();
        assert_eq!(
            (deit.resize, deit.mean[0], deit.deviation[2]),
            (resize(40, Filter::Bicubic), 0.485, 0.225)
        );
        let bare = json!({
            "image_processor_type": "ViTImageProcessor", "do_resize": false, "do_rescale": false, "do_normalize": false,
        });
        let bare = completed(bare).unwrap();
        assert_eq!((bare.resize, bare.rescale, bare.mean, bare.deviation), (None, 1.0, [0.0; 3], [1.0; 3]));
    }

    #[test]
    fn what_would_change_the_pixels_is_refused_by_name() {
        let refused = |more: Value, part: &str| {
            let mut value =
                json!({ "image_processor_type": "ViTImageProcessor", "size": { "height": 32, "width": 32 } });
            more.as_object().unwrap().iter().for_each(|(key, field)| value[key] = field.clone());
            let error = completed(value).expect_err(part);
            assert!(error.starts_with(NAME) && error.contains(part), "{error}");
        };
        refused(
            json!({ "image_processor_type": "BitImageProcessor" }),
            "image_processor_type is BitImageProcessor",
        );
        refused(json!({ "image_processor_type": null }), "image_processor_type: expected ViTImageProcessor");
        refused(json!({ "size": 48 }), "size: expected 32 x 32, the model's image_size (positions are not");
        refused(json!({ "size": { "shortest_edge": 32 } }), "size is {\"shortest_edge\":32}");
        refused(
            json!({ "size": { "height": 32, "width": 0 } }),
            "size.width: expected a whole number from 1",
        );
        refused(json!({ "resample": 1 }), "resample is 1");
        refused(json!({ "do_center_crop": true, "crop_size": 28 }), "crop_size: expected 32 x 32");
        refused(
            json!({ "do_center_crop": true, "crop_size": 32, "size": 30 }),
            "size: expected 32 x 32 or more",
        );
        refused(
            json!({ "do_center_crop": true, "do_resize": false }),
            "do_center_crop is true without do_resize",
        );
        refused(json!({ "image_mean": [0.5, 0.5] }), "image_mean: expected a list of 3 numbers");
        refused(json!({ "image_std": [0.5, 0, 0.5] }), "image_std: expected a number from 1e-6");
        refused(json!({ "rescale_factor": 0 }), "rescale_factor: expected a number from 1e-6");
        refused(json!({ "do_normalize": 1 }), "do_normalize: expected true or false");
    }
}
