//! Shapes as signed distances in pixels, negative inside, and folds of the plane that repeat or mirror them.

use crate::random::Stream;

pub(super) type Point = [f64; 2];

/// Returns a uniformly random unit vector.
pub(super) fn direction(rng: &mut Stream) -> Point {
    loop {
        let p = [rng.between(-1.0, 1.0), rng.between(-1.0, 1.0)];
        let length = norm(p);
        if (0.1..=1.0).contains(&length) {
            return [p[0] / length, p[1] / length];
        }
    }
}

/// Returns the coordinates of `p` in rotated axes, the first of which points along `direction`.
pub(super) fn rotate(p: Point, direction: Point) -> Point {
    [p[0] * direction[0] + p[1] * direction[1], p[1] * direction[0] - p[0] * direction[1]]
}

fn norm(p: Point) -> f64 {
    (p[0] * p[0] + p[1] * p[1]).sqrt()
}

/// A form of radius `size`, `stretch` times as wide as high, rotated to `along`, at `center`.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) form: Form,
    pub(super) center: Point,
    pub(super) size: f64,
    pub(super) stretch: f64,
    pub(super) along: Point,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Disc,
    /// A ring whose thickness is this fraction of the size.
    Ring(f64),
    Box,
    Triangle,
    Hexagon,
    /// A bar with round ends. Half its thickness is this fraction of the size.
    Bar(f64),
    /// A cross. Half the thickness of its bars is this fraction of the size.
    Cross(f64),
}

impl Shape {
    /// Returns the signed distance of `p`, or a lower bound if the shape is stretched.
    fn distance(&self, p: Point) -> f64 {
        let q = rotate([p[0] - self.center[0], p[1] - self.center[1]], self.along);
        let p = [q[0] / self.stretch, q[1]];
        let a = [p[0].abs(), p[1].abs()];
        let r = self.size;
        // √3 / 2, the sine of 120°.
        const S: f64 = 0.866_025_403_784_438_6;
        let distance = match self.form {
            Form::Disc => norm(p) - r,
            Form::Ring(thickness) => (norm(p) - r * (1.0 - thickness / 2.0)).abs() - r * thickness / 2.0,
            Form::Box => a[0].max(a[1]) - r,
            Form::Triangle => (S * a[0] + 0.5 * p[1]).max(-p[1]) - r * 0.6,
            Form::Hexagon => a[1].max(S * a[0] + 0.5 * a[1]) - r,
            Form::Bar(thickness) => norm([(a[0] - r).max(0.0), a[1]]) - r * thickness,
            Form::Cross(thickness) => {
                let t = r * thickness;
                (a[0] - r).max(a[1] - t).min((a[1] - r).max(a[0] - t))
            }
        };
        distance * self.stretch.min(1.0)
    }
}

/// How a shape is repeated.
#[derive(Debug, Clone)]
pub(super) enum Fold {
    Single,
    /// Mirrored at the vertical line through this x.
    Mirror(f64),
    /// On a lattice rotated to `along`; every other row is shifted by `shift` periods.
    Tile {
        along: Point,
        period: Point,
        shift: f64,
    },
    /// One copy at each of these offsets.
    Copies(Vec<Point>),
}

impl Fold {
    /// Returns the smallest distance from `p` to `shape` or one of its copies, and `p` in the coordinates of that copy.
    pub(super) fn nearest(&self, shape: &Shape, p: Point) -> (f64, Point) {
        let one = |p: Point| (shape.distance(p), p);
        match self {
            Self::Single => one(p),
            Self::Mirror(x) => {
                let (right, left) = (one(p), one([2.0 * x - p[0], p[1]]));
                if left.0 < right.0 { left } else { right }
            }
            Self::Tile { along, period, shift } => {
                let mut q = rotate(p, *along);
                let row = (q[1] / period[1]).floor();
                q[1] -= (row + 0.5) * period[1];
                let column = q[0] / period[0] + if row % 2.0 == 0.0 { 0.0 } else { *shift };
                q[0] = (column - column.floor() - 0.5) * period[0];
                one(q)
            }
            Self::Copies(offsets) => {
                let copies = offsets.iter().map(|m| one([p[0] - m[0], p[1] - m[1]]));
                copies.reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap_or_else(|| one(p))
            }
        }
    }
}
