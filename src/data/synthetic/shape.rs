//! Shapes as signed distances in pixels, negative inside, and folds of the plane that repeat or mirror them.

use crate::random::Stream;

pub type Point = [f64; 2];

/// A uniformly random direction of length 1.
pub fn direction(rng: &mut Stream) -> Point {
    loop {
        let p = [rng.between(-1.0, 1.0), rng.between(-1.0, 1.0)];
        let length = norm(p);
        if (0.1..=1.0).contains(&length) {
            return [p[0] / length, p[1] / length];
        }
    }
}

/// `p` in axes of which the first points along `direction`.
pub fn rotate(p: Point, direction: Point) -> Point {
    [p[0] * direction[0] + p[1] * direction[1], p[1] * direction[0] - p[0] * direction[1]]
}

fn norm(p: Point) -> f64 {
    (p[0] * p[0] + p[1] * p[1]).sqrt()
}

/// A form of about `size` about the origin, `stretch` times as wide as high, turned to `along`, at `center`.
#[derive(Debug, Clone)]
pub struct Shape {
    pub form: Form,
    pub center: Point,
    pub size: f64,
    pub stretch: f64,
    pub along: Point,
}

#[derive(Debug, Clone, Copy)]
pub enum Form {
    Disc,
    /// Of the given thickness, as a fraction of the size.
    Ring(f64),
    Box,
    Triangle,
    Hexagon,
    /// A bar with round ends, as thick as the fraction of the size.
    Bar(f64),
    Cross(f64),
}

impl Shape {
    /// The signed distance of `p`, or a little less where the shape is stretched.
    pub fn distance(&self, p: Point) -> f64 {
        let q = rotate([p[0] - self.center[0], p[1] - self.center[1]], self.along);
        let p = [q[0] / self.stretch, q[1]];
        let a = [p[0].abs(), p[1].abs()];
        let r = self.size;
        // √3 / 2: the sine of 120°.
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

/// Where a shape stands, besides where it is.
#[derive(Debug, Clone)]
pub enum Fold {
    Single,
    /// Mirrored about the vertical line at x.
    Mirror(f64),
    /// On a lattice turned to `along`; every other row is shifted by `shift` periods.
    Tile {
        along: Point,
        period: Point,
        shift: f64,
    },
    /// A copy moved by each of these.
    Copies(Vec<Point>),
}

impl Fold {
    /// The least distance of `p` to `shape` and its copies, and `p` as that copy sees it.
    pub fn nearest(&self, shape: &Shape, p: Point) -> (f64, Point) {
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
            Self::Copies(moves) => {
                let copies = moves.iter().map(|m| one([p[0] - m[0], p[1] - m[1]]));
                copies.reduce(|a, b| if b.0 < a.0 { b } else { a }).unwrap_or_else(|| one(p))
            }
        }
    }
}
