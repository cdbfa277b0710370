//! The report as one page without external resources.

mod connections;
mod phases;
mod timeline;

use std::fmt::Write;

use super::{
    Report,
    svg::escape,
    table::{counted, ms, rows},
};
use crate::{
    clock::millis,
    record::{After, Invocation, PhaseKind},
};

const STYLE: &str = include_str!("html/style.css");

/// Rows of the list of invocations; a page must stay light enough to open.
const MAX_ROWS: usize = 1000;

/// The phases of the pictures: class, name, meaning.
const LEGEND: &[(PhaseKind, &str)] = &[
    (PhaseKind::Init, "init: process start to first poll"),
    (PhaseKind::Restore, "restore of a snapshot"),
    (PhaseKind::Wait, "waiting for the function"),
    (PhaseKind::Handler, "handler"),
    (PhaseKind::Stream, "answer being streamed"),
    (PhaseKind::After, "after the answer, still billed"),
    (PhaseKind::Kill, "killed at the deadline"),
    (PhaseKind::Frozen, "frozen"),
    (PhaseKind::Shutdown, "shutdown"),
];

pub(super) fn render(report: &Report) -> String {
    let mut page = String::new();
    let name = report
        .setting
        .command
        .first()
        .map_or("function", |program| {
            program.rsplit('/').next().unwrap_or(program)
        });
    let (class, word) = if report.verdict.ok {
        ("good", "nothing lost, nothing left behind".to_owned())
    } else {
        ("bad", report.verdict.problems.join(", "))
    };
    let mut put = |text: &str| page.push_str(text);
    put("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    put("<meta name=\"viewport\" content=\"width=device-width\">\n");
    put(&format!(
        "<title>sandbox: {}</title>\n<style>\n{STYLE}</style></head><body>\n",
        escape(name)
    ));
    put(&format!(
        "<h1>{} <span class=\"badge {class}\">{}</span></h1>\n",
        escape(name),
        escape(&word)
    ));
    put(&format!(
        "<p class=\"command\">{}</p>\n",
        escape(&report.setting.command.join(" "))
    ));
    put(&setting(report));
    put(&summary(report));
    put(&figure(
        "Every environment over time",
        "One line per environment. Invocations are drawn at least three pixels wide, coloured by \
         their phases. The black line below a lane shows since when the network has been dark for \
         one of its connections; the server keeps its end open.",
        &legend(report, true),
        &timeline::draw(report),
    ));
    if report.setting.proxied {
        put(&figure(
            "Connections to the database over time",
            "The step line is exact (the proxies' own books); the dots are what the server said \
             when it was asked.",
            connections::LEGEND,
            &connections::draw(report),
        ));
    }
    put(&figure(
        "Every invocation's phases",
        "One bar per invocation, in order, all rows on one scale. A bar that is cut off at the top \
         is longer than the scale and has its length written on it or in its tooltip. A red ground (or cap) \
         marks an invocation without a good answer; the black mark below a bar, one that began \
         with a connection that the network had forgotten.",
        &legend(report, false),
        &phases::draw(report),
    ));
    put(&violations(report));
    put(&invocations(report));
    put("</body></html>\n");
    page
}

fn setting(report: &Report) -> String {
    let setting = &report.setting;
    let mut chips = vec![
        counted(setting.environments, "environment"),
        counted(setting.invocations, "invocation"),
        format!("timeout {}", ms(setting.timeout_ms)),
        format!("{} MB", setting.memory_mb),
    ];
    if setting.concurrency > 1 {
        chips.push(format!("{} at once in a process", setting.concurrency));
    }
    if setting.freeze_ms > 0.0 {
        chips.push(format!("freeze {}", ms(setting.freeze_ms)));
    }
    if setting.jump_ms > 0.0 {
        chips.push(format!("wall clock jumps {}", ms(setting.jump_ms)));
    }
    if setting.proxied {
        chips.push(format!("round trip {}", ms(setting.rtt_ms)));
    }
    if let Some(every) = setting.dark_every {
        chips.push(format!("connections forgotten in every {every}th freeze"));
    }
    chips.extend(setting.faults.iter().cloned());
    chips.push(format!("took {}", ms(report.duration_ms)));
    let mut list = String::new();
    for chip in &chips {
        let _ = write!(list, "<li>{}</li>", escape(chip));
    }
    format!("<ul class=\"chips\">{list}</ul>\n")
}

fn summary(report: &Report) -> String {
    let mut list = String::new();
    for (name, value) in rows(report) {
        let _ = writeln!(list, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    format!("<table class=\"summary\">{list}</table>\n")
}

fn figure(title: &str, caption: &str, legend: &str, picture: &str) -> String {
    format!(
        "<figure><h2>{title}</h2>\n<figcaption>{caption}</figcaption>\n{legend}\n{picture}</figure>\n"
    )
}

/// Explains only phases that occur in this run.
fn legend(report: &Report, lanes: bool) -> String {
    let occurs = |kind: PhaseKind| {
        let environments = &report.environments;
        let of_lanes = environments
            .iter()
            .flat_map(|environment| &environment.phases);
        let of_calls = report
            .invocations()
            .flat_map(|invocation| &invocation.phases);
        of_lanes
            .filter(|_| lanes)
            .chain(of_calls)
            .any(|phase| phase.kind == kind)
    };
    let mut items = String::new();
    for (kind, meaning) in LEGEND.iter().filter(|(kind, _)| occurs(*kind)) {
        let _ = write!(
            items,
            "<li><i class=\"{}\"></i>{meaning}</li>",
            class(*kind)
        );
    }
    if lanes {
        items.push_str("<li><i class=\"lane\"></i>no process</li>");
    }
    let mut connections = report.environments.iter().flat_map(|e| &e.connections);
    if connections.any(|connection| connection.dark.is_some()) {
        items.push_str("<li><i class=\"dark\"></i>network dark for a connection</li>");
    }
    if report
        .invocations()
        .any(|invocation| !invocation.is_answered())
    {
        items.push_str("<li><i class=\"lost\"></i>no good answer</li>");
    }
    format!("<ul class=\"legend\">{items}</ul>")
}

/// The CSS class of a phase.
fn class(kind: PhaseKind) -> &'static str {
    match kind {
        PhaseKind::Init => "init",
        PhaseKind::Restore => "restore",
        PhaseKind::Wait => "wait",
        PhaseKind::Handler => "handler",
        PhaseKind::Stream => "stream",
        PhaseKind::After => "after",
        PhaseKind::Kill => "kill",
        PhaseKind::Frozen => "frozen",
        PhaseKind::Shutdown => "shutdown",
    }
}

/// The tooltip of an invocation.
fn tooltip(environment: usize, invocation: &Invocation) -> String {
    let mut text = format!(
        "environment {environment}, invocation {}{}\n{}\nthe caller waited {}, billed {}",
        invocation.number,
        if invocation.cold { " (cold)" } else { "" },
        invocation.outcome,
        ms(millis(invocation.waited)),
        ms(millis(invocation.billed)),
    );
    for phase in &invocation.phases {
        let _ = write!(
            text,
            "\n  {}: {}",
            class(phase.kind),
            ms(phase.to - phase.from)
        );
    }
    if invocation.after == After::KilledAtDeadline {
        text.push_str("\nstill busy at the deadline, after its answer");
    }
    text
}

fn violations(report: &Report) -> String {
    let mut rows = String::new();
    for environment in &report.environments {
        for violation in environment.violations.iter().take(MAX_ROWS) {
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                environment.number,
                ms(violation.at),
                escape(&violation.request),
                violation.status,
                escape(&violation.message)
            );
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Calls that the Runtime API refused</h2><table class=\"list\"><tr><th>environment</th>\
         <th>at</th><th>call</th><th>status</th><th>why</th></tr>{rows}</table>\n"
    )
}

fn invocations(report: &Report) -> String {
    let all = report
        .environments
        .iter()
        .flat_map(|e| e.invocations.iter().map(move |i| (e.number, i)));
    // Failed invocations come first: readers look for them.
    let (good, lost): (Vec<_>, Vec<_>) = all.partition(|(_, invocation)| invocation.is_answered());
    let mut rows = String::new();
    for (environment, invocation) in lost.iter().chain(&good).take(MAX_ROWS) {
        let class = if invocation.is_answered() {
            ""
        } else {
            " class=\"lost\""
        };
        let _ = writeln!(
            rows,
            "<tr{class}><td>{environment}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            invocation.number,
            if invocation.cold { "cold" } else { "" },
            ms(millis(invocation.waited)),
            ms(millis(invocation.billed)),
            escape(&invocation.outcome.to_string()),
        );
    }
    let open = if lost.is_empty() { "" } else { " open" };
    format!(
        "<details{open}><summary>Invocations ({} without a good answer)</summary><table class=\"list\">\
         <tr><th>environment</th><th>invocation</th><th></th><th>the caller waited</th><th>billed</th>\
         <th>outcome</th></tr>{rows}</table></details>\n",
        lost.len()
    )
}
