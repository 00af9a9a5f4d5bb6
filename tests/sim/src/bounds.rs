//! What no scheduler can do better than: fluid bounds, in which pages are infinitely small and delays nothing.

/// A peer as bounds see it: when it comes, and its line in bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Seconds from the start.
    pub arrives: f64,
    /// Upload that it can give; 0 if nobody can reach it, or it serves nobody.
    pub up: f64,
    /// Download.
    pub down: f64,
}

/// Least seconds from the start until all have `size` bytes, from an origin that uploads `origin` bytes a second.
///
/// With all at the start: `max(F/u_s, F/d_min, N·F/(u_s + U))` (Kumar and Ross 2006). With arrivals: the smallest `T` with
/// `N·F ≤ ∫₀ᵀ (u_s + uploads of who arrived) dt`, `T ≥ a_i + F/d_i` and `T ≥ F/u_s`.
#[must_use]
pub fn fluid(size: f64, origin: f64, members: &[Member]) -> f64 {
    with_copies(size, origin, members, None)
}

/// The same if the origin sends `copies` copies at most: `max(F/u_s, F/d_min, (N−c)·F/U)` with all at the start.
#[must_use]
pub fn capped(size: f64, origin: f64, members: &[Member], copies: f64) -> f64 {
    with_copies(size, origin, members, Some(copies))
}

fn with_copies(size: f64, origin: f64, members: &[Member], copies: Option<f64>) -> f64 {
    let alone = members.iter().map(|m| m.arrives + size / m.down).fold(size / origin, f64::max);
    let wanted = members.len() as f64 * size;
    let from_origin = |t: f64| copies.map_or(origin * t, |c| (origin * t).min(c * size));
    let given = |t: f64| {
        let peers: f64 = members.iter().map(|m| m.up * (t - m.arrives).max(0.0)).sum();
        from_origin(t) + peers
    };
    if given(alone) >= wanted {
        return alone;
    }
    let (mut low, mut high) = (alone, alone.max(1.0));
    while given(high) < wanted {
        high *= 2.0;
        if high > 1e12 {
            return f64::INFINITY;
        }
    }
    for _ in 0..100 {
        let mid = f64::midpoint(low, high);
        if given(mid) < wanted {
            low = mid;
        } else {
            high = mid;
        }
    }
    high
}

/// Least bytes a second that an origin sends while `viewers` play at `rate` without prefetching, each of whom came before the
/// next and can give `up`: the first has nobody but the origin, the next are served by who came before (Huang, Li and Ross
/// 2007). Seeks aside.
#[must_use]
pub fn origin_of_players(rate: f64, up: &[f64]) -> f64 {
    let (mut spare, mut origin) = (0.0f64, 0.0);
    for u in up {
        let from_peers = rate.min(spare);
        origin += rate - from_peers;
        spare += u - from_peers;
    }
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(n: usize, up: f64, arrives: f64) -> Vec<Member> {
        vec![Member { arrives, up, down: 100.0 }; n]
    }

    #[test]
    fn bounds_are_those_of_the_formulas() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6 * b, "{a} {b}");
        near(fluid(1000.0, 10.0, &all(9, 10.0, 0.0)), 100.0);
        near(fluid(1000.0, 10.0, &all(99, 1.0, 0.0)), 99_000.0 / 109.0);
        near(capped(1000.0, 10.0, &all(9, 10.0, 0.0), 1.0), 100.0);
        near(capped(1000.0, 1000.0, &all(11, 1.0, 0.0), 1.0), 1000.0 * 10.0 / 11.0);
        near(fluid(1000.0, 1e9, &all(3, 1.0, 5.0)), 15.0);
        // Who comes late gives late: 2000 = 10 T + 10 (T - 50).
        let late = [all(1, 0.0, 0.0), all(1, 10.0, 50.0)].concat();
        near(fluid(1000.0, 10.0, &late), 125.0);
        assert!(capped(1000.0, 10.0, &all(3, 0.0, 0.0), 1.0).is_infinite());
        near(origin_of_players(1.0, &[2.0, 2.0, 2.0]), 1.0);
        near(origin_of_players(1.0, &[0.5, 0.0, 0.0]), 2.5);
    }
}
