//! Basic shapes of the charts.

use std::fmt::Write;

/// The width of all charts; heights depend on the content.
pub(super) const WIDTH: f64 = 1120.0;
/// Where the drawing area begins and ends; names are left of it.
pub(super) const LEFT: f64 = 74.0;
pub(super) const RIGHT: f64 = WIDTH - 16.0;

/// A chart under construction.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
    height: f64,
}

impl Svg {
    pub(super) fn new(height: f64) -> Self {
        Self {
            body: String::new(),
            height,
        }
    }

    /// A box of a CSS class, with a tooltip if `title` is not empty.
    pub(super) fn rect(
        &mut self,
        class: &str,
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        title: &str,
    ) {
        let (width, height) = (width.max(0.0), height.max(0.0));
        let shape = format!(
            r#"<rect class="{class}" x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}""#
        );
        if title.is_empty() {
            self.push(&format!("{shape}/>"));
        } else {
            self.push(&format!("{shape}><title>{}</title></rect>", escape(title)));
        }
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.push(&format!(
            r#"<line class="{class}" x1="{:.2}" y1="{:.2}" x2="{:.2}" y2="{:.2}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// A path of straight lines.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut data = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let verb = if index == 0 { 'M' } else { 'L' };
            let _ = write!(data, "{verb}{x:.2} {y:.2}");
        }
        self.push(&format!(r#"<path class="{class}" d="{data}"/>"#));
    }

    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        self.push(&format!(
            r#"<text class="{class}" x="{x:.2}" y="{y:.2}">{}</text>"#,
            escape(text)
        ));
    }

    /// The element, with a text alternative.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            r#"<svg viewBox="0 0 {WIDTH} {:.0}" role="img" aria-label="{}">{}</svg>"#,
            self.height,
            escape(label),
            self.body
        )
    }

    fn push(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }
}

/// Maps values to positions, and finds round values between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) max: f64,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Scale {
    pub(super) fn at(&self, value: f64) -> f64 {
        self.from
            + (self.to - self.from) * (value / self.max.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }

    /// At most about `count` round values: 1, 2 or 5 times a power of ten apart.
    pub(super) fn ticks(&self, count: f64) -> Vec<f64> {
        let raw = (self.max / count).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| *step >= raw).unwrap_or(raw);
        let mut ticks = Vec::new();
        let mut value = 0.0;
        while value <= self.max * 1.0001 && ticks.len() < 100 {
            ticks.push(value);
            value += step;
        }
        ticks
    }
}

/// The axis of the run's time, with thin lines up through the lanes.
pub(super) fn time_axis(svg: &mut Svg, scale: Scale, top: f64, bottom: f64) {
    for tick in scale.ticks(12.0) {
        let x = scale.at(tick);
        svg.line("grid", (x, top), (x, bottom));
        svg.text("tick mid", x, bottom + 15.0, &seconds(tick, scale.max));
    }
    svg.text(
        "axis mid",
        f64::midpoint(LEFT, RIGHT),
        bottom + 32.0,
        "time since the start of the run",
    );
}

fn seconds(ms: f64, max: f64) -> String {
    match max {
        max if max < 2_000.0 => format!("{ms:.0} ms"),
        max if max < 20_000.0 => format!("{:.1} s", ms / 1000.0),
        _ => format!("{:.0} s", ms / 1000.0),
    }
}

/// Escapes text and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
