//! Horizontal bars, in panels side by side, one row for each contender.

use super::svg::{Anchor, Ink, Svg};

/// A part of a bar.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) value: f64,
    pub(super) colour: &'static str,
}

/// What stands in one row of one panel.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) parts: Vec<Part>,
    /// A thin line goes on to here.
    pub(super) whisker: Option<f64>,
    pub(super) words: String,
}

/// One scale.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<Option<Bar>>,
    /// The length of the scale.
    pub(super) longest: f64,
    pub(super) unit: &'static str,
}

/// A picture.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) rows: Vec<(String, bool)>,
    pub(super) panels: Vec<Panel>,
    pub(super) legend: Vec<(&'static str, &'static str)>,
    pub(super) note: String,
}

pub(super) const GREY: &str = "#8a94a3";
pub(super) const BLUE: &str = "#1f6feb";
pub(super) const ORANGE: &str = "#d9822b";
pub(super) const RED: &str = "#c93a3a";
pub(super) const GREEN: &str = "#2c8a57";
pub(super) const PALE: &str = "#c9d3df";
const INK: &str = "#1c2430";
const FAINT: &str = "#5b6675";
const RULE: &str = "#e3e7ec";

const MARGIN: f64 = 20.0;
const LABELS: f64 = 276.0;
/// Panels side by side: more would be too small to read where a page is a thousand pixels wide.
const ABREAST: usize = 2;
/// Between two lines of panels.
const BETWEEN: f64 = 64.0;
const PANEL: f64 = 250.0;
/// For the words behind the longest bar.
const BEHIND: f64 = 92.0;
const GAP: f64 = 18.0;
const ROW: f64 = 24.0;
const BAR: f64 = 13.0;
const HEAD: f64 = 104.0;
const FOOT: f64 = 52.0;

const fn ink(size: f64, colour: &'static str, bold: bool) -> Ink {
    Ink { size, colour, bold }
}

impl Chart {
    pub(super) fn draw(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "a handful of panels and rows")]
        let [abreast, lines, rows] = [
            self.panels.len().min(ABREAST),
            self.panels.len().div_ceil(ABREAST),
            self.rows.len(),
        ]
        .map(|count| count as f64);
        let width = 2.0 * MARGIN + LABELS + abreast * (PANEL + BEHIND) + (abreast - 1.0) * GAP;
        let line = rows * ROW + BETWEEN;
        let height = HEAD + lines * line - BETWEEN + FOOT;
        let mut svg = Svg::new(width, height);
        let at = |y| [MARGIN, y];
        svg.text(at(30.0), Anchor::Start, ink(17.0, INK, true), &self.title);
        svg.text(
            at(50.0),
            Anchor::Start,
            ink(12.0, FAINT, false),
            &self.subtitle,
        );
        self.draw_legend(&mut svg);
        let mut top = HEAD;
        for panels in self.panels.chunks(ABREAST) {
            self.draw_labels(&mut svg, top);
            let mut x = MARGIN + LABELS;
            for panel in panels {
                panel.draw(&mut svg, x, [top, top + rows * ROW]);
                x += PANEL + BEHIND + GAP;
            }
            top += line;
        }
        let foot = at(height - 14.0);
        svg.text(foot, Anchor::Start, ink(11.0, FAINT, false), &self.note);
        svg.finish(&self.title)
    }

    fn draw_legend(&self, svg: &mut Svg) {
        let mut x = MARGIN;
        for (colour, words) in &self.legend {
            svg.rect([x, 61.0], [11.0, 11.0], colour);
            let at = [x + 16.0, 71.0];
            svg.text(at, Anchor::Start, ink(12.0, FAINT, false), words);
            #[allow(clippy::cast_precision_loss, reason = "a short text")]
            let letters = words.chars().count() as f64;
            x += 34.0 + letters * 6.3;
        }
    }

    fn draw_labels(&self, svg: &mut Svg, top: f64) {
        let mut y = top;
        for (label, strong) in &self.rows {
            let end = [MARGIN + LABELS - 10.0, y + ROW / 2.0 + 4.0];
            svg.text(end, Anchor::End, ink(12.0, INK, *strong), label);
            y += ROW;
        }
    }
}

impl Panel {
    fn draw(&self, svg: &mut Svg, left: f64, [top, bottom]: [f64; 2]) {
        let scale = PANEL / self.longest;
        svg.text(
            [left, top - 14.0],
            Anchor::Start,
            ink(13.0, INK, true),
            &self.title,
        );
        let step = nice_step(self.longest);
        let mut tick = 0.0;
        while tick <= self.longest + step * 0.01 {
            let x = left + tick * scale;
            svg.line([x, top - 4.0], [x, bottom], RULE, 1.0);
            let words = if tick == 0.0 {
                format!("0 {}", self.unit)
            } else {
                short(tick)
            };
            svg.text(
                [x, bottom + 15.0],
                Anchor::Middle,
                ink(10.5, FAINT, false),
                &words,
            );
            tick += step;
        }
        let mut y = top;
        for bar in &self.bars {
            if let Some(bar) = bar {
                bar.draw(svg, [left, y], scale);
            }
            y += ROW;
        }
    }
}

impl Bar {
    fn draw(&self, svg: &mut Svg, [left, y]: [f64; 2], scale: f64) {
        let top = y + (ROW - BAR) / 2.0;
        let middle = y + ROW / 2.0;
        let mut x = left;
        for part in &self.parts {
            let width = (part.value * scale).min(left + PANEL - x).max(0.0);
            svg.rect([x, top], [width, BAR], part.colour);
            x += width;
        }
        let mut end = x;
        if let Some(whisker) = self.whisker {
            let to = (left + whisker * scale).min(left + PANEL);
            if to > x {
                svg.line([x, middle], [to, middle], FAINT, 1.2);
                // Where it goes on beyond the panel it has no end.
                if whisker * scale <= PANEL {
                    svg.line([to, middle - 3.5], [to, middle + 3.5], FAINT, 1.2);
                }
                end = to;
            }
        }
        let at = [end + 6.0, middle + 4.0];
        svg.text(at, Anchor::Start, ink(11.5, INK, false), &self.words);
    }
}

/// Between three and six steps of 1, 2 or 5 times a power of ten.
fn nice_step(longest: f64) -> f64 {
    let rough = longest / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| step * power >= rough * 0.9);
    step.unwrap_or(10.0) * power
}

/// A number with as many digits as it deserves.
pub(super) fn short(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
