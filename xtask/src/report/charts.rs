//! Drawings in SVG: lines over a logarithmic axis, and a bar of parts. Colours are classes of the page's style.

use maud::{Markup, html};

/// A line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// A point: what is above 0 and finite is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Half of the bar of its uncertainty.
    pub(super) error: f64,
}

/// Series that have a colour of their own; more begin again.
const COLOURS: usize = 6;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// Lines over a linear x and a logarithmic y; nothing where there is no point to draw.
pub(super) fn lines(series: &[Series], x_label: &str, y_label: &str) -> Option<Markup> {
    let drawn = |point: &&Point| point.x.is_finite() && point.y.is_finite() && point.y > 0.0;
    let points = || series.iter().flat_map(|series| series.points.iter().filter(drawn));
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (mut x_low, mut x_high) = bounds(&mut points().map(|point| point.x));
    let (y_low, y_high) = bounds(&mut points().map(|point| point.y.log10()));
    if x_low > x_high {
        return None;
    }
    if x_low == x_high {
        (x_low, x_high) = (x_low - 0.5, x_high + 0.5);
    }
    let margin = (x_high - x_low) * 0.03;
    (x_low, x_high) = (x_low - margin, x_high + margin);
    // Whole powers of ten, one at least.
    let (y_low, mut y_high) = (y_low.floor(), y_high.ceil());
    if y_high == y_low {
        y_high += 1.0;
    }
    let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y_at =
        |y: f64| TOP + (y_high - y.log10().clamp(y_low, y_high)) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let bottom = HEIGHT - BOTTOM;
    let ticks: Vec<f64> = x_ticks(x_low, x_high);
    let powers: Vec<i32> = (y_low as i32..=y_high as i32).collect();
    let number = |value: f64| format!("{value:.1}");
    Some(html! {
        figure.chart {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(format!("{y_label} over {x_label}")) {
                @for power in &powers {
                    @let y = number(y_at(10f64.powi(*power)));
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y) y2=(y) {}
                    text.tick x=(LEFT - 8.0) y=(y) dy="4" text-anchor="end" { (power_of_ten(*power)) }
                }
                @for tick in &ticks {
                    @let x = number(x_at(*tick));
                    line.grid x1=(x) x2=(x) y1=(TOP) y2=(bottom) {}
                    text.tick x=(x) y=(bottom + 17.0) text-anchor="middle" { (tick) }
                }
                text.label x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (x_label) }
                text.label x="14" y=((TOP + bottom) / 2.0) text-anchor="middle"
                    transform=(format!("rotate(-90 14 {})", (TOP + bottom) / 2.0)) { (y_label) }
                @for (index, series) in series.iter().enumerate() {
                    g class=(format!("series c{}", index % COLOURS)) {
                        polyline points=(series.points.iter().filter(drawn)
                            .map(|point| format!("{:.1},{:.1}", x_at(point.x), y_at(point.y)))
                            .collect::<Vec<_>>().join(" ")) {}
                        @for point in series.points.iter().filter(drawn) {
                            @let x = number(x_at(point.x));
                            @if point.error > 0.0 {
                                line x1=(x) x2=(x) y1=(number(y_at(point.y + point.error)))
                                    y2=(number(y_at((point.y - point.error).max(10f64.powf(y_low))))) {}
                            }
                            circle cx=(x) cy=(number(y_at(point.y))) r="3.5" {
                                title { (series.name) ": " (point.x) ", " (format!("{:.3e}", point.y)) }
                            }
                        }
                    }
                }
            }
            (legend(series.iter().map(|series| series.name.as_str())))
        }
    })
}

/// Round numbers between two, seven at most.
fn x_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0]
        .into_iter()
        .find(|step| (high - low) / step <= 7.0)
        .unwrap_or(high - low);
    let first = (low / step).ceil() as i64;
    (first..=(high / step).floor() as i64).map(|tick| (tick as f64 * step * 10.0).round() / 10.0).collect()
}

fn power_of_ten(power: i32) -> String {
    match power {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("1e{power}"),
    }
}

/// Which colour is what.
fn legend<'n>(names: impl Iterator<Item = &'n str>) -> Markup {
    html! {
        figcaption.legend {
            @for (index, name) in names.enumerate() {
                span { span class=(format!("key c{}", index % COLOURS)) {} (name) }
            }
        }
    }
}

/// A bar of parts of a whole, what is left last and without colour.
pub(super) fn bar(parts: &[(&str, u64)], whole: u64) -> Markup {
    let whole = whole.max(parts.iter().map(|(_, bytes)| bytes).sum()).max(1);
    let share = |bytes: u64| bytes as f64 / whole as f64 * WIDTH;
    let mut begins = Vec::new();
    let mut at = 0.0;
    for (_, bytes) in parts {
        begins.push(at);
        at += share(*bytes);
    }
    html! {
        figure.chart {
            svg viewBox=(format!("0 0 {WIDTH} 26")) role="img" aria-label="shares of the memory" preserveAspectRatio="none" {
                rect.rest x="0" y="0" width=(WIDTH) height="26" {}
                @for (index, ((name, bytes), begin)) in parts.iter().zip(&begins).enumerate() {
                    rect class=(format!("part c{}", index % COLOURS)) x=(format!("{begin:.2}")) y="0"
                        width=(format!("{:.2}", share(*bytes))) height="26" { title { (name) ": " (bytes) } }
                }
            }
            (legend(parts.iter().map(|(name, _)| *name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        let points = points.iter().map(|&(x, y)| Point { x, y, error: 0.0 }).collect();
        Series { name: "a".to_owned(), points }
    }

    #[test]
    fn points_that_cannot_be_drawn_are_left_out() {
        assert_eq!(lines(&[], "x", "y").map(|chart| chart.into_string()), None);
        let none = series(&[(1.0, 0.0), (1.0, -1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY)]);
        assert_eq!(lines(&[none], "x", "y").map(|chart| chart.into_string()), None);
        let one = lines(&[series(&[(4.0, 0.01), (5.0, 0.0)])], "x", "y").expect("a point").into_string();
        assert_eq!(one.matches("<circle").count(), 1);
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(x_ticks(1.9, 8.1), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(x_ticks(4.45, 5.3), [4.6, 4.8, 5.0, 5.2]);
        assert!(x_ticks(0.0, 1e9).len() <= 2);
    }
}
