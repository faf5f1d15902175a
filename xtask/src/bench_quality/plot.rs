//! The plot of `bench quality`: KL divergence, on a logarithmic axis, against bits a weight.
//!
//! A method is a colour, the same in every plot; a group size is a marker. Points of the same method and group are joined. Bars
//! are two standard errors of the mean over calibration samples; where one would reach below the axis it ends there. Models whose
//! activations, head bits, transform or rank differ get a panel each, one below the other.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::table::{Report, Row, distinct};
use crate::error::Error;
use rescomp_quantizer::transforms::TransformKind;

/// Width of the plot, in pixels.
const WIDTH: u32 = 960;
/// Height of a panel.
const HEIGHT: u32 = 600;
/// The legend's and the axes' text.
const TEXT: (&str, u32) = ("sans-serif", 15);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The plot as an SVG document.
///
/// # Errors
/// `Exit::Failed` where the drawing library refuses.
pub(super) fn svg(report: &Report) -> Result<String, Error> {
    let panels = distinct(&report.rows, |row| (row.activations, row.head_bits, row.transform, row.rank));
    let mut document = String::new();
    {
        let size = (WIDTH, HEIGHT * panels.len().max(1) as u32);
        let root = SVGBackend::with_string(&mut document, size).into_drawing_area();
        root.fill(&WHITE).map_err(|error| refused(&error))?;
        for (area, panel) in root.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
            let rows: Vec<&Row> = report
                .rows
                .iter()
                .filter(|row| (row.activations, row.head_bits, row.transform, row.rank) == panel)
                .collect();
            draw_panel(area, &title(report, panel), &rows).map_err(|error| refused(&error))?;
        }
        root.present().map_err(|error| refused(&error))?;
    }
    Ok(document)
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::failed("the plot could not be drawn").caused_by(error)
}

fn title(
    report: &Report,
    (activations, head_bits, transform, rank): (&str, Option<u8>, &str, u32),
) -> String {
    let what = match head_bits {
        Some(bits) => format!("containers, head {bits} bits"),
        None => "linear layers only".to_owned(),
    };
    let transform = match transform == TransformKind::None.name() {
        true => String::new(),
        false => format!(", {transform}"),
    };
    let rank = if rank > 0 { format!(", corrections of rank {rank}") } else { String::new() };
    format!("{}: {what}, activations {activations}{transform}{rank}", report.model)
}

/// Where a row lies: bits a weight, divergence, two standard errors of it. `None` where the divergence has no logarithm.
fn point(row: &Row) -> Option<(f64, f64, f64)> {
    let errors = 2.0 * row.mean_kl_standard_error.unwrap_or(0.0);
    (row.mean_kl > 0.0 && row.mean_kl.is_finite()).then_some((row.bits_per_weight, row.mean_kl, errors))
}

/// The axes' ranges, so that every point and every bar's upper end has room.
fn ranges(points: &[(f64, f64, f64)]) -> (std::ops::Range<f64>, std::ops::Range<f64>) {
    let least = |value: fn(&(f64, f64, f64)) -> f64| points.iter().map(value).fold(f64::INFINITY, f64::min);
    let most = |value: fn(&(f64, f64, f64)) -> f64| points.iter().map(value).fold(0.0, f64::max);
    if points.is_empty() {
        return (0.0..8.0, 0.01..1.0);
    }
    (least(|p| p.0) - 0.25..most(|p| p.0) + 0.25, least(|p| p.1) / 1.5..most(|p| p.1 + p.2) * 1.5)
}

fn draw_panel<'b>(
    area: &Area<'b>,
    title: &str,
    rows: &[&Row],
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>> {
    let points: Vec<_> = rows.iter().filter_map(|row| point(row)).collect();
    let (bits, kl) = ranges(&points);
    let lowest = kl.start;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(bits, kl.log_scale())?;
    chart
        .configure_mesh()
        .x_desc("bits a weight")
        .y_desc("mean KL divergence, nats a token")
        .x_label_formatter(&|bits| format!("{bits:.1}"))
        .y_label_formatter(&|kl| one_digit(*kl))
        .label_style(TEXT)
        .axis_desc_style(("sans-serif", 17))
        .bold_line_style(BLACK.mix(0.18))
        .max_light_lines(0)
        .draw()?;
    let groups = distinct(rows, |row| row.group.as_str());
    for method in distinct(rows, |row| row.method) {
        let colour = colour(method);
        for &group in &groups {
            let mut points: Vec<_> = rows
                .iter()
                .filter(|row| row.method == method && row.group == group)
                .filter_map(|row| point(row))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let line = LineSeries::new(points.iter().map(|p| (p.0, p.1)), colour.stroke_width(2));
            let series = chart.draw_series(line)?;
            if group == groups[0] {
                series.label(method).legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(3))
                });
            }
            let bars = points.iter().filter(|p| p.2 > 0.0).map(|&(bits, kl, errors)| {
                let low = (kl - errors).max(lowest);
                ErrorBar::new_vertical(bits, low, kl, kl + errors, colour.filled(), 8)
            });
            chart.draw_series(bars)?;
            let marked = |p: &(f64, f64, f64)| {
                EmptyElement::at((p.0, p.1)) + Polygon::new(marker(group), colour.filled())
            };
            chart.draw_series(points.iter().map(marked))?;
        }
    }
    if groups.len() > 1 {
        for &group in &groups {
            let name = if group == "row" { "a scale a row".to_owned() } else { format!("group {group}") };
            let corners = marker(group);
            chart.draw_series(std::iter::empty::<Polygon<(f64, f64)>>())?.label(name).legend(
                move |(x, y)| {
                    let placed: Vec<_> =
                        corners.iter().map(|corner| (x + 11 + corner.0, y + corner.1)).collect();
                    Polygon::new(placed, BLACK.mix(0.7).filled())
                },
            );
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(TEXT)
        .margin(10)
        .draw()?;
    Ok(())
}

/// A number of one significant digit without the noise of its binary fraction: 0.7, not 0.7000000000000001.
fn one_digit(number: f64) -> String {
    let decimals = (-number.log10().floor()).clamp(0.0, 12.0);
    format!("{number:.*}", decimals as usize)
}

/// Colours that stay apart for people who see few of them (Okabe and Ito's).
fn colour(method: &str) -> RGBAColor {
    match method {
        "gptq" => RGBColor(0, 114, 178),
        "gptaq" => RGBColor(230, 159, 0),
        "rescomp" => RGBColor(0, 158, 115),
        "rescomp-exact" => RGBColor(213, 94, 0),
        _ => RGBColor(110, 110, 110),
    }
    .to_rgba()
}

/// The corners of a group size's marker around its centre, in pixels.
fn marker(group: &str) -> Vec<(i32, i32)> {
    match group {
        "32" => vec![(0, -6), (5, 4), (-5, 4)],
        "64" => vec![(5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2), (-5, -2), (-2, -5), (2, -5)],
        "128" => vec![(-4, -4), (4, -4), (4, 4), (-4, 4)],
        _ => vec![(0, -6), (4, 0), (0, 6), (-4, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Run;
    use super::super::table::tests::{report, run};
    use super::*;

    /// A run at some bits a weight.
    fn at(method: &'static str, group: &str, bits_per_weight: f64, mean_kl: f64) -> Run {
        let mut run = run(method, group, 0, mean_kl);
        run.bits = bits_per_weight as u8;
        run.evaluation.bits_per_weight = bits_per_weight;
        run
    }

    /// The points of the lines of an SVG document that are drawn in the colour of a method.
    fn lines(document: &str, method: &str) -> Vec<Vec<(f64, f64)>> {
        let colour = colour(method);
        let stroke = format!("stroke=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        let line = |element: &str| {
            let points = element.split("points=\"").nth(1)?.split('"').next()?;
            let number = |text: &str| text.parse::<f64>().expect("a coordinate");
            let pair = |pair: &str| pair.split_once(',').map(|(x, y)| (number(x), number(y)));
            Some(points.split_whitespace().filter_map(pair).collect::<Vec<_>>())
        };
        document
            .split('<')
            .filter(|element| element.starts_with("polyline") && element.contains(&stroke))
            .filter_map(line)
            .collect()
    }

    #[test]
    fn equal_ratios_of_divergence_are_equal_heights() {
        let runs = vec![
            at("gptq", "64", 4.0, 0.01),
            at("gptq", "64", 2.0, 1.0),
            at("gptq", "64", 3.0, 0.1),
            at("rescomp-exact", "64", 2.0, 0.5),
            at("rescomp-exact", "64", 4.0, 0.005),
        ];
        let document = svg(&report(runs)).expect("drawn");
        let gptq = lines(&document, "gptq");
        let line = gptq.iter().find(|line| line.len() == 3).expect("a line through three points, by bits");
        let step = |at: usize| (line[at + 1].0 - line[at].0, line[at + 1].1 - line[at].1);
        let ((x0, y0), (x1, y1)) = (step(0), step(1));
        assert!(x0 > 100.0 && y0 > 50.0 && (x0 - x1).abs() <= 1.0 && (y0 - y1).abs() <= 1.0, "{line:?}");
        // Half of the divergence lies as far below as log10(2) has it.
        let exact = &lines(&document, "rescomp-exact")[0];
        assert!((exact[0].1 - line[0].1 - y0 * 2.0_f64.log10()).abs() <= 1.0, "{exact:?} {line:?}");
        assert!(document.contains(">\nrescomp-exact\n<") && !document.contains("group 64"), "{document}");
    }

    #[test]
    fn groups_have_lines_of_their_own_and_names() {
        let runs = [("32", 2.5), ("32", 4.5), ("row", 2.1), ("row", 4.1)]
            .map(|(group, bits)| at("gptq", group, bits, 2.0_f64.powf(-bits)));
        let document = svg(&report(runs.into())).expect("drawn");
        let long = lines(&document, "gptq").into_iter().filter(|line| line[1].0 - line[0].0 > 100.0);
        assert_eq!(long.count(), 2);
        assert!(document.contains("group 32") && document.contains("a scale a row"));
    }

    #[test]
    fn what_has_no_logarithm_is_left_out() {
        for kl in [0.0, f64::NAN, -1e-9] {
            let runs = vec![at("gptq", "64", 4.0, kl), at("rtn", "64", 4.0, 0.1)];
            let document = svg(&report(runs)).expect("drawn");
            assert!(!document.contains("NaN") && !document.contains("inf"), "{document}");
        }
        assert!(svg(&report(vec![at("gptq", "64", 4.0, 0.0)])).is_ok());
        assert!(svg(&report(Vec::new())).is_ok());
    }

    #[test]
    fn formats_of_activations_get_a_panel_each() {
        let mut other = at("gptq", "64", 4.0, 0.1);
        other.evaluation.activations = "f32";
        let document = svg(&report(vec![at("gptq", "64", 4.0, 0.2), other])).expect("drawn");
        assert!(document.contains("activations f32") && document.contains("activations int8"));
        assert!(document.contains(&format!("height=\"{}\"", 2 * HEIGHT)));
    }

    #[test]
    fn labels_have_one_digit() {
        for (number, expected) in
            [(0.1 + 0.2, "0.3"), (7.000_000_000_000_001, "7"), (0.009_000_000_1, "0.009"), (20.0, "20")]
        {
            assert_eq!(one_digit(number), expected);
        }
    }
}
