//! Composes random scenes from shapes.

use super::paint::{Color, Paint, color, contrasting};
use super::scene::{Layer, Scene};
use super::shape::{Fold, Form, Point, Shape, direction};
use crate::random::Stream;

/// Returns a random scene of one of five kinds.
pub(super) fn scene(rng: &mut Stream) -> Scene {
    match rng.below(20) {
        0..=6 => landscape(rng),
        7..=9 => wallpaper(rng),
        10..=13 => mirrored(rng),
        14..=16 => repeated(rng),
        _ => regions(rng),
    }
}

/// Returns a scene with a few objects, often with a horizon.
fn landscape(rng: &mut Stream) -> Scene {
    let mut scene = ground(rng);
    for _ in 0..1 + rng.below(3) {
        let (center, size) = ([rng.between(-11.0, 11.0), rng.between(-9.0, 11.0)], rng.between(4.5, 10.0));
        object(&mut scene, center, size, &Fold::Single, rng);
    }
    scene
}

/// Returns a scene with one motif that is repeated on a lattice.
fn wallpaper(rng: &mut Stream) -> Scene {
    let base = color(rng);
    let mut scene = Scene { ground: Paint::plain(base, rng), layers: vec![] };
    let period = [rng.between(9.0, 16.0), rng.between(9.0, 16.0)];
    let shift = [0.0, 0.5][rng.below(2)];
    let along = if rng.coin() { [1.0, 0.0] } else { direction(rng) };
    let fold = Fold::Tile { along, period, shift };
    let size = period[0].min(period[1]) * rng.between(0.28, 0.4);
    object(&mut scene, [0.0, 0.0], size, &fold, rng);
    scene
}

/// Returns a scene with objects and their mirror images.
fn mirrored(rng: &mut Stream) -> Scene {
    let mut scene = ground(rng);
    let fold = Fold::Mirror(rng.between(-2.5, 2.5));
    for i in 0..2 + rng.below(2) {
        // The first object is near the axis and connects the others.
        let x = if i == 0 { rng.between(0.0, 3.0) } else { rng.between(5.0, 11.0) };
        let size = if i == 0 { rng.between(5.0, 10.0) } else { rng.between(3.5, 6.5) };
        object(&mut scene, [x, rng.between(-9.0, 9.0)], size, &fold, rng);
    }
    scene
}

/// Returns a scene with the same object in several distant corners.
fn repeated(rng: &mut Stream) -> Scene {
    let mut scene = ground(rng);
    let mut corners = vec![[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]];
    corners.truncate(2 + rng.below(3));
    let offsets = corners.iter().map(|c| c.map(|side| side * rng.between(6.5, 10.5))).collect();
    let size = rng.between(3.5, 6.5);
    object(&mut scene, [0.0, 0.0], size, &Fold::Copies(offsets), rng);
    scene
}

/// Returns a scene with regions that have different textures and straight borders.
fn regions(rng: &mut Stream) -> Scene {
    let base = color(rng);
    let mut scene = Scene { ground: Paint::textured(base, rng), layers: vec![] };
    let mut last = base;
    for _ in 0..1 + rng.below(3) {
        last = contrasting(last, rng);
        let paint = Paint::textured(last, rng);
        half_plane(&mut scene, direction(rng), rng.between(-6.0, 9.0), paint);
    }
    if rng.coin() {
        object(&mut scene, [rng.between(-8.0, 8.0), rng.between(-8.0, 8.0)], rng.between(3.0, 7.0), &Fold::Single, rng);
    }
    scene
}

/// Returns a scene with only a background: in half the cases, two areas separated by a horizon.
fn ground(rng: &mut Stream) -> Scene {
    let base = color(rng);
    let mut scene = Scene { ground: Paint::plain(base, rng), layers: vec![] };
    if rng.coin() {
        let near = contrasting(base, rng);
        let paint = if rng.coin() { Paint::textured(near, rng) } else { Paint::plain(near, rng) };
        half_plane(&mut scene, [rng.between(-0.15, 0.15), 1.0], rng.between(-4.0, 9.0), paint);
    }
    scene
}

/// Adds the half-plane that starts `offset` pixels from the centre in the direction of `normal`.
fn half_plane(scene: &mut Scene, normal: Point, offset: f64, paint: Paint) {
    // A box whose other sides are outside the image.
    const SIZE: f64 = 200.0;
    let length = (normal[0] * normal[0] + normal[1] * normal[1]).sqrt();
    let along = normal.map(|v| v / length);
    let shape = Shape { form: Form::Box, center: along.map(|v| v * (offset + SIZE)), size: SIZE, stretch: 1.0, along };
    scene.layers.push(Layer { shape, fold: Fold::Single, paint });
}

/// Adds an object in a colour that contrasts with what is below it, sometimes with a rim, often with a smaller detail.
fn object(scene: &mut Scene, center: Point, size: f64, fold: &Fold, rng: &mut Stream) {
    let ground = scene.layers.last().map_or(scene.ground.base, |layer| layer.paint.base);
    let base = contrasting(ground, rng);
    let body = Shape { form: form(rng), center, size, stretch: rng.between(0.6, 1.6), along: orientation(rng) };
    if rng.below(4) == 0 {
        let rim: Color = base.map(|v| v * 0.45);
        let shape = Shape { size: size + rng.between(1.5, 2.5), ..body.clone() };
        scene.layers.push(Layer { shape, fold: fold.clone(), paint: Paint::plain(rim, rng) });
    }
    let paint = if rng.below(3) == 0 { Paint::textured(base, rng) } else { Paint::plain(base, rng) };
    scene.layers.push(Layer { shape: body.clone(), fold: fold.clone(), paint });
    if size > 5.0 && rng.coin() {
        let aside = [rng.between(-0.3, 0.3) * size, rng.between(-0.3, 0.3) * size];
        let center = [center[0] + aside[0], center[1] + aside[1]];
        let detail = Shape { form: form(rng), center, size: size * rng.between(0.45, 0.65), ..body };
        let paint = Paint::plain(contrasting(base, rng), rng);
        scene.layers.push(Layer { shape: detail, fold: fold.clone(), paint });
    }
}

/// Returns a random form.
fn form(rng: &mut Stream) -> Form {
    match rng.below(9) {
        0 | 1 => Form::Disc,
        2 => Form::Ring(rng.between(0.35, 0.6)),
        3 | 4 => Form::Box,
        5 => Form::Triangle,
        6 => Form::Hexagon,
        7 => Form::Bar(rng.between(0.3, 0.5)),
        _ => Form::Cross(rng.between(0.32, 0.45)),
    }
}

/// Returns a random orientation: aligned with the axes in half the cases.
fn orientation(rng: &mut Stream) -> Point {
    if rng.coin() { [1.0, 0.0] } else { direction(rng) }
}
