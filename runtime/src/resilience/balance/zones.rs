//! The caller's own zone first.

use super::Candidate;
use super::draws::Draws;

/// How many times as much as another an endpoint of the own zone may cost before the other is taken.
/// Going elsewhere costs a little time and often money, so a small difference is no reason.
const SPILL: f64 = 4.0;

/// Places by zone.
#[derive(Debug)]
pub(super) struct Zones {
    /// All places, those of a zone together.
    places: Box<[u32]>,
    /// A zone, and where in `places` it begins and ends.
    zones: Box<[(Box<str>, usize, usize)]>,
}

impl Zones {
    pub(super) fn new<C: Candidate>(members: &[C]) -> Self {
        let mut places: Vec<u32> = (0..members.len())
            .map(|at| u32::try_from(at).unwrap_or(u32::MAX))
            .collect();
        let zone_of = |at: u32| members[at as usize].zone();
        places.sort_by_key(|at| zone_of(*at));
        let mut zones: Vec<(Box<str>, usize, usize)> = Vec::new();
        for (position, at) in places.iter().enumerate() {
            let Some(zone) = zone_of(*at) else {
                continue;
            };
            match zones.last_mut() {
                Some((known, _, end)) if **known == *zone => *end = position + 1,
                _ => zones.push((zone.into(), position, position + 1)),
            }
        }
        Self {
            places: places.into(),
            zones: zones.into(),
        }
    }

    /// The cheaper of two of the zone, unless one of elsewhere is cheaper by far; one of elsewhere
    /// where neither of the two is usable: the more of the zone are not, the more goes elsewhere.
    /// `None` where the zone is not known, or nothing drawn is usable.
    pub(super) fn pick(
        &self,
        zone: Option<&str>,
        draws: &Draws,
        usable: impl Fn(usize) -> bool,
        cost: impl Fn(usize) -> f64,
        in_flight: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let zone = zone?;
        let found = self.zones.iter().find(|(known, ..)| **known == *zone)?;
        let (begin, end) = (found.1, found.2);
        let inside = |drawn: usize| self.places[begin + drawn] as usize;
        let local = match end - begin {
            1 => Some(inside(0)),
            count => {
                let (one, other) = draws.two(count);
                let (one, other) = (inside(one), inside(other));
                match (usable(one), usable(other)) {
                    (true, true) if cost(other) < cost(one) => Some(other),
                    (false, true) => Some(other),
                    _ => Some(one),
                }
            }
        };
        let local = local.filter(|at| usable(*at));
        let outside = self.places.len() - (end - begin);
        if outside == 0 {
            return local;
        }
        let drawn = draws.below(outside);
        let position = if drawn < begin {
            drawn
        } else {
            drawn + (end - begin)
        };
        let remote = Some(self.places[position] as usize).filter(|at| usable(*at));
        match (local, remote) {
            (Some(local), Some(remote)) if cost(local) > SPILL * cost(remote) => {
                // That one costs nothing says nothing as long as nobody has called it.
                let known = cost(remote) > 0.0;
                let spill = known || f64::from(in_flight(local)) >= SPILL;
                Some(if spill { remote } else { local })
            }
            (Some(local), _) => Some(local),
            (None, remote) => remote,
        }
    }
}
