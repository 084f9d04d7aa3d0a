//! Whether a picture makes sense: what a viewer takes for granted, and what a trace of a working kernel shows. For tests.
//!
//! next: `tests/trace.rs`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// A track: the numbers of its process and its thread.
pub type TrackId = (u64, u64);

/// What a picture holds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The slices of each track, in the order of their beginnings.
    pub tracks: BTreeMap<TrackId, Vec<Slice>>,
    /// For each arrow, the slice that it comes from and the one it leads to.
    pub arrows: Vec<(Slice, Slice)>,
    /// What tracks are called.
    pub names: BTreeMap<TrackId, String>,
}

/// A slice. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// When it begins.
    pub begin: u64,
    /// When it ends.
    pub end: u64,
}

/// Looks through a document.
///
/// # Errors
/// Times do not rise, slices of a track overlap without nesting, an arrow lacks an end, leads back in time, or hangs in the air.
pub fn check(document: &Value) -> Result<Summary> {
    let events = document["traceEvents"].as_array().context("no events")?;
    let mut summary = Summary::default();
    let mut arrows: BTreeMap<u64, [Option<(u64, TrackId)>; 2]> = BTreeMap::new();
    let mut last = 0;
    for event in events {
        let text = |field: &str| event[field].as_str().map(str::to_owned).with_context(|| format!("{field}: {event}"));
        let number = |field: &str| event[field].as_u64().with_context(|| format!("{field}: {event}"));
        let time = |field: &str| nanoseconds(&event[field]).with_context(|| format!("{field}: {event}"));
        let phase = text("ph")?;
        if phase == "M" {
            if text("name")? == "thread_name" {
                let name = event["args"]["name"].as_str().context("a name")?;
                summary.names.insert((number("pid")?, number("tid")?), name.into());
            }
            continue;
        }
        let (begin, track) = (time("ts")?, (number("pid")?, number("tid")?));
        ensure!(begin >= last, "time goes back at {event}");
        last = begin;
        match phase.as_str() {
            "X" => {
                let end = begin + time("dur")?;
                summary.tracks.entry(track).or_default().push(Slice {
                    kind: text("cat")?,
                    name: text("name")?,
                    begin,
                    end,
                });
            }
            "s" | "f" => {
                let ends = arrows.entry(number("id")?).or_default();
                let end = &mut ends[usize::from(phase == "f")];
                ensure!(end.replace((begin, track)).is_none(), "two arrows in one: {event}");
            }
            "i" => {}
            _ => anyhow::bail!("an unknown phase: {event}"),
        }
    }
    for (track, slices) in &summary.tracks {
        nest(slices).with_context(|| format!("track {track:?}"))?;
    }
    for (id, ends) in arrows {
        let [Some((start, from)), Some((end, to))] = ends else { anyhow::bail!("arrow {id} lacks an end") };
        ensure!(start <= end, "arrow {id} leads back in time");
        let around = |time: u64, track: TrackId, is_target: bool| {
            let slices = summary.tracks.get(&track).map(Vec::as_slice).unwrap_or_default();
            let around = |slice: &&Slice| slice.begin <= time && time <= slice.end;
            // An arrow leads to the poll that begins there.
            let fits = |slice: &&Slice| !is_target || slice.kind == "poll" && slice.begin == time;
            slices.iter().rev().find(|slice| around(slice) && fits(slice)).cloned()
        };
        let source = around(start, from, false).with_context(|| format!("arrow {id} comes from nowhere"))?;
        let target = around(end, to, true).with_context(|| format!("arrow {id} leads nowhere"))?;
        summary.arrows.push((source, target));
    }
    Ok(summary)
}

/// Microseconds with three digits behind the point, as nanoseconds.
fn nanoseconds(value: &Value) -> Option<u64> {
    let micros = value.as_f64().filter(|micros| *micros >= 0.0)?;
    Some((micros * 1e3).round() as u64)
}

/// Of two slices of a track one is within the other, or they do not meet.
fn nest(slices: &[Slice]) -> Result<()> {
    let mut open: Vec<&Slice> = Vec::new();
    for slice in slices {
        while open.pop_if(|outer| outer.end <= slice.begin).is_some() {}
        if let Some(outer) = open.last() {
            ensure!(slice.end <= outer.end, "{slice:?} reaches out of {outer:?}");
        }
        open.push(slice);
    }
    Ok(())
}
