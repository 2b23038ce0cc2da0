//! Tests that parse the whole page.

use std::collections::BTreeMap;

use super::*;
use crate::comparison::loss::tests::{curve, row};
use crate::comparison::testing::{claim_answer, floors, measured};
use crate::comparison::{ClaimAnswer, metrics_csv};
use crate::config::EvaluationSplit;
use crate::data::{Images, Samples};

/// A hostile name, in text, quotes and scripts.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)> & \"quoted\" 'too' {{ 1234567 * 3 }}";

fn answer(arm: &str) -> ClaimAnswer {
    ClaimAnswer { claim: HOSTILE.into(), arm: arm.into(), control: "bicubic".into(), ..claim_answer() }
}

/// A run with these arms in which everything has a hostile name.
fn report(names: &[String]) -> Report {
    let hr =
        Images::new(8, 32, 32, (0..8 * 3072).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let lr = Images::new(8, 8, 8, vec![9; 8 * 192]);
    let samples = Samples::new(8, 2, 32, 32, hr.pixels.iter().chain(&hr.pixels).map(|v| v.wrapping_mul(7)).collect());
    let mut arms = measured();
    arms.truncate(1);
    arms.extend(names.iter().map(|name| crate::comparison::Measured { name: name.clone(), ..measured()[1].clone() }));
    let summary =
        Summary { claims: vec![answer(&names[0])], notes: vec![HOSTILE.into()], ..Summary::of(&arms, floors()) };
    let arm = |(i, name): (usize, &String)| Arm {
        name: name.clone(),
        params: BTreeMap::from([("train.model.width".to_string(), i.to_string()), (HOSTILE.into(), HOSTILE.into())]),
        costs: vec![("parameters", "7".into())],
    };
    let rows: Vec<_> =
        (1..200).map(|i| row(i, Some(1.0 / i as f64), (i % 10 == 0).then_some(0.5 / i as f64))).collect();
    let training = |(arm, name): (usize, &String)| Training {
        curve: curve(name, rows.clone()),
        other_seeds: vec![rows.clone()],
        arm,
        seconds_per_step: Some(0.1),
    };
    let bad = Badge { word: "failed".into(), tone: Tone::Bad };
    Report {
        pipeline: HOSTILE.into(),
        description: Some(HOSTILE.into()),
        state: bad.clone(),
        facts: vec![HOSTILE.into()],
        failures: vec![Failure { stage: HOSTILE.into(), error: HOSTILE.into(), log: HOSTILE.into() }],
        comparisons: vec![
            Comparison {
                name: HOSTILE.into(),
                paired: vec![],
                selected: vec![HOSTILE.into()],
                split: EvaluationSplit::Test,
                exploratory: vec![Some(HOSTILE.into())],
                is_of_samples: false,
                metrics: Some(metrics_csv(&arms).unwrap()),
                summary: Some(summary),
                arms: names.iter().enumerate().map(arm).collect(),
                pictures: Some(Pictures::new(
                    &hr,
                    &lr,
                    4,
                    8,
                    names.iter().map(|name| ArmPictures::of(name, &samples, 8)).collect(),
                )),
                attention: vec![Attention {
                    arm: HOSTILE.into(),
                    layer: HOSTILE.into(),
                    hr: hr.slice(0..1),
                    weights: vec![vec![0.25; 16]],
                    queries: 4,
                    keys: 4,
                    side: 2,
                }],
            },
            Comparison { name: "not made".into(), ..Comparison::default() },
        ],
        trainings: names.iter().enumerate().map(training).collect(),
        nodes: vec![Node { name: HOSTILE.into(), kind: "fetch", count: 1, state: bad.clone(), ..Node::default() }],
        stages: names
            .iter()
            .map(|name| Stage {
                name: name.clone(),
                kind: "train",
                state: bad.clone(),
                time: "1 s".into(),
                key: HOSTILE.into(),
            })
            .collect(),
        more_stages: 3,
        provenance: vec![(HOSTILE.into(), HOSTILE.into())],
        command: HOSTILE.into(),
        yaml: HOSTILE.into(),
    }
}

/// Returns the elements, and the text outside of scripts and styles. Panics on a parse error or an unclosed element.
fn parse(page: &str) -> (Vec<html5gum::StartTag<()>>, String) {
    const VOID: [&[u8]; 4] = [b"meta", b"img", b"input", b"wbr"];
    // In SVG, elements may be self-closing.
    const DRAWN: [&[u8]; 6] = [b"rect", b"line", b"circle", b"polyline", b"polygon", b"path"];
    let mut emitter = html5gum::DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let (mut open, mut tags, mut text) = (vec![], vec![], String::new());
    for token in html5gum::Tokenizer::new_with_emitter(page, emitter) {
        match token.unwrap() {
            html5gum::Token::StartTag(tag) => {
                if !(VOID.contains(&&tag.name[..]) || tag.self_closing && DRAWN.contains(&&tag.name[..])) {
                    open.push(tag.name.clone());
                }
                tags.push(tag);
            }
            html5gum::Token::EndTag(tag) => assert_eq!(open.pop().as_ref(), Some(&tag.name), "{:?}", tag.name),
            html5gum::Token::String(part)
                if !open.last().is_some_and(|name| [&b"script"[..], b"style"].contains(&&name[..])) =>
            {
                text += &String::from_utf8_lossy(&part);
            }
            html5gum::Token::Error(error) => panic!("{error:?}, after … {}", &text[text.len().saturating_sub(200)..]),
            _ => {}
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    (tags, text)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("baseline[base_channels={i},schedule={HOSTILE}]")).collect()
}

#[test]
fn a_page_is_well_formed_and_escapes_every_name() {
    let names = names(3);
    let page = report(&names).render().unwrap();
    let (tags, text) = parse(&page);
    assert!(text.matches(HOSTILE).count() > 20, "{}", text.matches(HOSTILE).count());
    assert!(!text.contains("3703701"), "names are not interpreted as templates");
    assert!(tags.iter().all(|tag| !tag.attributes.keys().any(|name| name.starts_with(b"on"))), "nothing runs");
    assert_eq!(tags.iter().filter(|tag| tag.name[..] == b"script"[..]).count(), 1);
    for name in &names {
        assert!(text.matches(name.as_str()).count() >= 5, "{name} in tables, images, legends and stages");
    }
    assert_eq!(page, report(&names).render().unwrap());
}

#[test]
fn a_page_is_self_contained() {
    let page = report(&names(2)).render().unwrap();
    let (tags, _) = parse(&page);
    for tag in &tags {
        for (name, value) in &tag.attributes {
            let value = String::from_utf8_lossy(value);
            match &name[..] {
                b"src" => assert!(value.starts_with("data:image/png;base64,"), "{value}"),
                b"href" => assert!(value.starts_with('#'), "{value}"),
                _ => {}
            }
        }
    }
    assert!(!include_str!("style.css").contains("url(") && !include_str!("style.css").contains("@import"));
    assert!(!include_str!("script.js").contains("fetch(") && !include_str!("script.js").contains("import"));
    let anchors: Vec<_> = tags.iter().filter_map(|tag| tag.attributes.get(&b"href"[..])).collect();
    let ids: Vec<_> = tags.iter().filter_map(|tag| tag.attributes.get(&b"id"[..])).collect();
    assert!(anchors.len() >= 7 && anchors.iter().all(|anchor| ids.iter().any(|id| id[..] == anchor[1..])));
}

#[test]
fn attention_positions_are_selectable_without_javascript() {
    let page = report(&names(1)).render().unwrap();
    let (tags, _) = parse(&page);
    let class =
        |tag: &html5gum::StartTag<()>| tag.attributes.get(&b"class"[..]).map(|c| String::from_utf8_lossy(c).into());
    let classes: Vec<String> = tags.iter().filter(|tag| tag.name[..] == b"input"[..]).filter_map(class).collect();
    for (x, y) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        assert_eq!(classes.iter().filter(|class| **class == format!("x{x} y{y}")).count(), 1, "{classes:?}");
    }
    for (axis, i, state) in [("x", 0, "checked"), ("y", 1, "checked"), ("x", 1, "hover"), ("y", 0, "hover")] {
        let rule = format!(".attention-images figure:has(.{axis}{i}:{state}) {{ --{axis}: {i}; }}");
        assert!(page.contains(&rule), "{rule}");
    }
    assert!(!page.contains(".x2:"), "there is no third column");
}

#[test]
fn a_page_shows_many_arms_and_stays_small() {
    let names = names(80);
    let page = report(&names).render().unwrap();
    assert!(page.len() < MAX_SIZE, "{}", page.len());
    let (tags, text) = parse(&page);
    assert!(names.iter().all(|name| text.matches(name.as_str()).count() >= 5));
    assert!(tags.iter().filter(|tag| tag.name[..] == b"img"[..]).count() > 400);
}

#[test]
fn a_run_without_data_has_a_page() {
    let (_, text) = parse(&Report { pipeline: "p".into(), ..Report::default() }.render().unwrap());
    assert!(text.contains("Provenance"), "{text}");
}
