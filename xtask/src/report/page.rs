//! The page.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{Point, Series, bar, lines};
use super::inputs::{Check, Inputs, Memory, Methods, Model, Place, Quality};

const STYLE: &str = include_str!("style.css");

/// All of it.
pub(super) fn page(inputs: &Inputs) -> Markup {
    let pack = &inputs.pack;
    let model = &pack.pack;
    let target = pack.target.as_str();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (model.checkpoint) " for " (target) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (model.checkpoint) " for " (target) }
                p.faint { "Quantized with " (model.method) ", calibrated on " (thousands(model.calibration_tokens)) " tokens, in "
                    (format!("{:.1}", pack.seconds)) " s." }
                (facts(model, pack.check.as_ref()))
                @if let Some(key) = &pack.signed_by { p { "Signed by key " code { (key) } "." } }
                @for warning in model.warnings.iter().chain(model.matrices.iter().flat_map(|matrix| &matrix.warnings)) {
                    p.bad { "Warning: " (warning) }
                }
                h2 { "Checks" }
                @match &pack.check {
                    Some(found) => (check("where pack ran it", found)),
                    None => (missing("No check ran.", &format!("cargo xtask check --target {target}"))),
                }
                @for (name, found) in &inputs.checks { (check(name, found)) }
                @if inputs.checks.is_empty() {
                    (missing("No report of a device.", &format!("cargo xtask check --target {target} --host HOST --report DEVICE.md, then report --check DEVICE.json")))
                }
                h2 { "Kernels" }
                (kernels(pack.check.iter().chain(inputs.checks.iter().map(|(_, check)| check))))
                h2 { "Memory" }
                @match &pack.memory {
                    Some(memory) => (plan(memory)),
                    None => p.missing { "A plan of memory is made for images (targets without an operating system); on Linux the container's "
                        (thousands(model.file_bytes)) " bytes are mapped, and " code { "rescomp info" } " says what a session takes." },
                }
                h2 { "Divergence over bits" }
                @match inputs.quality.as_ref() {
                    Some(report) => (quality(report)),
                    None => (missing("Not measured.", "cargo xtask bench quality --output QUALITY.md, then report --quality QUALITY.json")),
                }
                h2 { "Error by layer" }
                (errors(model, inputs.methods.as_ref()))
                h2 { "Matrices" }
                (matrices(model))
            }
        }
    }
}

/// A line in the place of what isn't there, with the command that makes it.
fn missing(what: &str, command: &str) -> Markup {
    html! { p.missing { (what) " It is made by " code { (command) } } }
}

/// A number with its digits in threes.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn facts(model: &Model, check: Option<&Check>) -> Markup {
    let host = check.map(|check| &check.host);
    let kl = host.and_then(|host| host.mean_kl);
    let same = host.and_then(|host| Some((host.same_top1?, host.positions?)));
    html! {
        dl.facts {
            div { dt { "Parameters" } dd { (thousands(model.parameters)) } }
            div { dt { "Container, bytes" } dd { (thousands(model.file_bytes)) } }
            div { dt { "Bits a weight" } dd { (format!("{:.3}", model.bits_per_weight)) } }
            div { dt { "Layout" } dd { (model.layout) } }
            @if let Some(kl) = kl { div { dt { "KL, nats a token" } dd { (format!("{kl:.6}")) } } }
            @if let Some((same, positions)) = same {
                div { dt { "Same top-1" } dd { (format!("{:.2} %", 100.0 * f64::from(same) / f64::from(positions.max(1)))) } }
            }
        }
    }
}

fn check(name: &str, check: &Check) -> Markup {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6}"));
    let begin = |digest: &Option<String>| {
        digest.as_deref().map_or("-".to_owned(), |digest| digest.chars().take(16).collect())
    };
    let row = |place: &Place| {
        html! {
            tr {
                td { (place.place) } td { (place.kernels) }
                td.n { (number(place.device.nll.or(place.device.mean_distance))) } td.n { (number(place.device.mean_kl)) }
                td { code { (begin(&place.device.logits_sha256)) } } td.n { (format!("{:.1} s", place.seconds)) }
                @if place.passed { td.good { "equal" } } @else { td.bad { "MISSED" } }
            }
        }
    };
    html! {
        h3 { (name) }
        div.scroll { table {
            thead { tr { th { "Where" } th { "Kernels" }
                th.n { @if check.host.nll.is_some() { "NLL" } @else { "Distance" } } th.n { "KL" } th { "Digest" } th.n { "Time" } th { "Verdict" } } }
            tbody {
                @if let Some(nll) = check.reference_nll {
                    tr { td { "full precision" } td { "f32" } td.n { (format!("{nll:.6}")) } td.n { "-" } td { "-" } td.n { "-" } td { "reference" } }
                }
                tr { td { "host" } td { "recorded" } td.n { (number(check.host.nll.or(check.host.mean_distance))) } td.n { (number(check.host.mean_kl)) }
                    td { code { (begin(&check.host.logits_sha256)) } } td.n { "-" } td { "record" } }
                @for place in &check.places { (row(place)) }
            }
        } }
        @if let Some(why) = &check.not_checked { p.bad { "Not checked on the target: " (why) } }
    }
}

fn kernels<'c>(checks: impl Iterator<Item = &'c Check>) -> Markup {
    let mut by_table: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut detailed = Vec::new();
    for place in checks.flat_map(|check| &check.places) {
        by_table.entry(&place.kernels).or_default().push(&place.place);
        if let Some(tensors) = place.tensor_kernels.as_ref().filter(|tensors| !tensors.is_empty()) {
            detailed.push((place, tensors));
        }
    }
    html! {
        @if by_table.is_empty() { (missing("Nothing ran.", "cargo xtask check")) }
        @else {
            div.scroll { table {
                thead { tr { th { "Table" } th { "Ran in" } } }
                tbody { @for (table, places) in &by_table { tr { td { code { (table) } } td { (places.join(", ")) } } } }
            } }
        }
        @for (place, tensors) in detailed {
            h3 { (place.place) ", " (place.kernels) }
            div.scroll { table {
                thead { tr { th { "Matrices" } th { "Encoding" } th { "Layout" } th { "One token" } th { "Several" } } }
                tbody { @for tensor in tensors { tr {
                    td { (tensor.tensor) } td { (tensor.encoding) } td { (tensor.layout) }
                    td { code { (tensor.gemv.as_deref().unwrap_or("-")) } } td { code { (tensor.gemm.as_deref().unwrap_or("-")) } }
                } } }
            } }
        }
    }
}

fn plan(memory: &Memory) -> Markup {
    let code = [
        ("Instructions", memory.text_bytes),
        ("Constants", memory.constant_bytes),
        ("Container", memory.container_bytes),
    ];
    let keys = format!("Keys and values, {} positions", memory.context);
    let data = [
        ("Variables", memory.variable_bytes),
        ("Stack", memory.stack_bytes),
        (keys.as_str(), memory.kv_cache_bytes),
        ("Scratch", memory.scratch_bytes),
    ];
    let part = |name: &str, parts: &[(&str, u64)], whole: u64| {
        let used: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        html! {
            h3 { (name) " of " (thousands(whole)) " bytes" }
            (bar(parts, whole))
            div.scroll { table { tbody {
                @for (name, bytes) in parts { tr { td { (name) } td.n { (thousands(*bytes)) } } }
                tr { td { "Left" } td.n { (thousands(whole.saturating_sub(used))) } }
            } } }
        }
    };
    match memory.data_memory_bytes {
        Some(data_bytes) => html! {
            (part("Code memory", &code, memory.code_memory_bytes))
            (part("Data memory", &data, data_bytes))
        },
        None => part("Memory", &[&code[..], &data[..]].concat(), memory.code_memory_bytes),
    }
}

fn quality(report: &Quality) -> Markup {
    let mut series: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for row in &report.rows {
        let error = 2.0 * row.mean_kl_standard_error.unwrap_or(0.0);
        let point = Point { x: row.bits_per_weight, y: row.mean_kl, error };
        series.entry(format!("{}, activations {}", row.method, row.activations)).or_default().push(point);
    }
    let series: Vec<Series> = series
        .into_iter()
        .map(|(name, mut points)| {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { name, points }
        })
        .collect();
    html! {
        (lines(&series, "bits a weight", "KL, nats a token").unwrap_or_else(|| html! { p.missing { "The report has no rows." } }))
        p.faint { (report.model) ", " (report.windows) " windows of " (report.context) " tokens; bars are two standard errors." }
    }
}

/// The sum and the number of a layer's errors.
type Layers = BTreeMap<usize, (f64, usize)>;

/// The mean of errors by series, in the order in which they come, and layer.
#[derive(Default)]
struct ByLayer(Vec<(String, Layers)>);

impl ByLayer {
    fn add(&mut self, name: &str, layer: usize, error: f64) {
        let index = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), BTreeMap::new()));
            self.0.len() - 1
        });
        let (sum, count) = self.0[index].1.entry(layer).or_default();
        *sum += error;
        *count += 1;
    }

    fn series(self) -> Vec<Series> {
        let point = |(layer, (sum, count)): (usize, (f64, usize))| Point {
            x: layer as f64,
            y: sum / count as f64,
            error: 0.0,
        };
        self.0
            .into_iter()
            .map(|(name, layers)| Series { name, points: layers.into_iter().map(point).collect() })
            .collect()
    }
}

fn errors(model: &Model, methods: Option<&Methods>) -> Markup {
    let mut by_layer = ByLayer::default();
    let what = match methods {
        Some(methods) => {
            for matrix in &methods.matrices {
                for errors in &matrix.methods {
                    by_layer.add(&errors.method, matrix.layer, errors.held_out);
                }
            }
            format!("Mean error of a layer's matrices on held-out tokens, {} bits, by method.", methods.bits)
        }
        None => {
            for matrix in &model.matrices {
                let (Some(layer), Some(held_out)) = (matrix.layer, &matrix.held_out) else { continue };
                by_layer.add("as the sweep began", layer, held_out.first);
                by_layer.add("after the sweep", layer, held_out.swept);
                by_layer.add("after refinement", layer, held_out.chosen);
            }
            "Mean error of a layer's matrices on held-out calibration windows, by step of the method."
                .to_owned()
        }
    };
    let make = "cargo xtask bench methods --output METHODS.md, then report --methods METHODS.json";
    html! {
        @match lines(&by_layer.series(), "layer", "relative error") {
            Some(chart) => { (chart) p.faint { (what) } }
            None => (missing("The method measured no held-out errors.", make)),
        }
        @if methods.is_none() { (missing("Other methods weren't compared.", make)) }
    }
}

fn matrices(model: &Model) -> Markup {
    // By kind: formats, how many, the sum and the number of errors.
    let mut kinds: Vec<(&str, String, usize, f64, usize)> = Vec::new();
    for matrix in model.vocabulary.iter().chain(&model.matrices) {
        let format = format!("{} bits, groups of {}", matrix.format.bits, matrix.format.group);
        let index = kinds.iter().position(|(kind, known, ..)| *kind == matrix.kind && *known == format);
        let index = index.unwrap_or_else(|| {
            kinds.push((&matrix.kind, format, 0, 0.0, 0));
            kinds.len() - 1
        });
        kinds[index].2 += 1;
        if let Some(error) = matrix.relative_error {
            kinds[index].3 += error;
            kinds[index].4 += 1;
        }
    }
    html! {
        div.scroll { table {
            thead { tr { th { "Kind" } th { "Format" } th.n { "Matrices" } th.n { "Mean relative error" } } }
            tbody { @for (kind, format, count, sum, errors) in &kinds { tr {
                td { (kind) } td { (format) } td.n { (count) }
                td.n { @if *errors > 0 { (format!("{:.2e}", sum / *errors as f64)) } @else { "-" } }
            } } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A label that would end an attribute, an element and a style, and run a script.
    const HOSTILE: &str = "\"'><script>alert(1)</script></style>&amp;<img src=x onerror=alert(1)>";

    fn inputs(label: &str, everything: bool) -> Inputs {
        let figures = json!({"nll": 1.5, "mean_kl": 0.02, "same_top1": 9, "positions": 10, "logits_sha256": "0123456789abcdef0123"});
        let kernels =
            json!([{"tensor": label, "encoding": "int4", "layout": "nr8k4", "gemv": label, "gemm": null}]);
        let check = json!({"reference_nll": 1.25, "host": figures, "not_checked": everything.then_some(label), "story": null,
            "places": [{"place": label, "kernels": label, "threads": 1, "device": figures, "passed": !everything, "seconds": 2.0, "tensor_kernels": kernels}]});
        let memory = json!({"text_bytes": 1000, "constant_bytes": 100, "container_bytes": 9000, "variable_bytes": 20, "stack_bytes": 500, "context": 64,
            "kv_cache_bytes": 7000, "scratch_bytes": 300, "code_memory_bytes": 20000, "data_memory_bytes": 10000});
        let matrix = json!({"layer": 0, "kind": label, "format": {"bits": 4, "group": label}, "relative_error": 0.001, "warnings": [label],
            "held_out": {"first": 0.003, "swept": 0.002, "chosen": 0.001}});
        let pack = json!({"target": label, "seconds": 12.0, "signed_by": label, "memory": everything.then_some(memory), "check": everything.then(|| check.clone()),
            "pack": {"checkpoint": label, "method": label, "layout": label, "parameters": 1234567, "bits_per_weight": 4.5, "file_bytes": 9000,
                "calibration_tokens": 1024, "warnings": [label], "vocabulary": [matrix], "matrices": [matrix]}});
        let quality = json!({"model": label, "windows": 4, "context": 128, "rows": [
            {"method": label, "activations": "int8", "bits_per_weight": 4.5, "mean_kl": 0.02, "mean_kl_standard_error": 0.001},
            {"method": label, "activations": "int8", "bits_per_weight": 2.5, "mean_kl": 0.4, "mean_kl_standard_error": null}]});
        let methods = json!({"bits": 4, "matrices": [{"layer": 0, "kind": label, "methods": [{"method": label, "held_out": 0.01}]}]});
        fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
            serde_json::from_value(value).expect("a report")
        }
        Inputs {
            pack: of(pack),
            checks: if everything { vec![(label.to_owned(), of(check))] } else { Vec::new() },
            quality: everything.then(|| of(quality)),
            methods: everything.then(|| of(methods)),
        }
    }

    /// The elements in order, with `/` before those that end; panics where one isn't closed in its turn.
    fn elements(page: &str) -> Vec<String> {
        const VOID: [&str; 3] = ["!DOCTYPE", "meta", "!doctype"];
        let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), page);
        while let Some(start) = rest.find('<') {
            // Attributes are quoted, and a quote in one is escaped.
            let mut quoted = false;
            let end = rest[start..]
                .char_indices()
                .find(|&(_, character)| {
                    quoted ^= character == '"';
                    character == '>' && !quoted
                })
                .map(|(at, _)| start + at)
                .expect("a tag ends");
            let tag = &rest[start + 1..end];
            let name = tag.split([' ', '\n']).next().unwrap_or_default().to_owned();
            rest = &rest[end + 1..];
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "closed in its turn"),
                None if VOID.contains(&name.as_str()) => {}
                None => open.push(name.clone()),
            }
            all.push(name);
        }
        assert!(open.is_empty(), "left open: {open:?}");
        all
    }

    #[test]
    fn labels_cannot_become_markup() {
        let (plain, hostile) =
            (page(&inputs("plain", true)).into_string(), page(&inputs(HOSTILE, true)).into_string());
        // The same elements in the same order, whatever labels say.
        assert_eq!(elements(&plain), elements(&hostile));
        for part in ["<script", "<img", "</style>&"] {
            assert!(!hostile.contains(part), "{part}");
        }
        assert!(hostile.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }

    #[test]
    fn a_page_is_whole_and_needs_nothing() {
        let page = page(&inputs("plain", true)).into_string();
        let found = elements(&page);
        for (element, count) in [
            ("html", 1),
            ("style", 1),
            ("h1", 1),
            ("h2", 6),
            ("svg", 4),
            ("script", 0),
            ("link", 0),
            ("img", 0),
        ] {
            assert_eq!(found.iter().filter(|name| *name == element).count(), count, "{element}");
        }
        assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("url("));
        assert!(!page.contains("class=\"missing\""));
        for part in
            ["1,234,567", "Data memory of 10,000 bytes", "MISSED", "Warning: plain", "width=device-width"]
        {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_its_command() {
        let page = page(&inputs("plain", false)).into_string();
        elements(&page);
        for command in [
            "cargo xtask check --target plain",
            "cargo xtask bench quality",
            "cargo xtask bench methods",
            "--host HOST",
        ] {
            assert!(page.contains(command), "{command}");
        }
        // What the method itself measured is drawn all the same.
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("after refinement"));
    }

    #[test]
    fn numbers_have_their_digits_in_threes() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
