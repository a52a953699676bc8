//! Random operations against what must always hold. `INTERLINE_SEED` repeats one run.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::clock::Rng;

/// Keys, of which each message has one.
const KEYS: [&str; 3] = ["a", "b", "c"];
/// Operations of one run.
const STEPS: u64 = 400;
/// Runs, each with its own seed.
const RUNS: u64 = 60;

/// What is known from outside about one group.
struct Watched {
    group: &'static str,
    prefetch: u16,
    reader: Reader,
    /// Out and not settled, by number of the message.
    out: BTreeMap<u64, Delivery>,
    /// How each message ended.
    ended: BTreeMap<u64, &'static str>,
    /// Per key, the number of the last message handed out for the first time.
    last: BTreeMap<String, u64>,
    /// What was handed out once.
    seen: BTreeSet<u64>,
}

impl Watched {
    async fn start(broker: &MemoryBroker, group: &'static str, prefetch: u16) -> Self {
        Self {
            group,
            prefetch,
            reader: read(broker, Self::subscription(group, prefetch)).await,
            out: BTreeMap::new(),
            ended: BTreeMap::new(),
            last: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    fn subscription(group: &str, prefetch: u16) -> Subscription {
        let mut wanted = subscription("t", group);
        wanted.prefetch = prefetch;
        wanted
    }

    /// Takes what has come, and checks the bound and the order.
    fn receive(&mut self) {
        while let Ok(delivery) = self.reader.deliveries.try_recv() {
            if !delivery.settlement.is_current() {
                continue;
            }
            let incoming = &delivery.incoming;
            let number: u64 = text(incoming).parse().unwrap();
            assert!(
                !self.ended.contains_key(&number),
                "{number} came after its end"
            );
            if self.seen.insert(number) {
                assert!(!incoming.redelivered || incoming.attempt == 1, "{number}");
                let key = incoming.key.as_deref().unwrap().to_owned();
                let before = self.last.insert(key, number);
                assert!(before < Some(number), "{number} came before {before:?}");
            }
            assert!(
                self.out.insert(number, delivery).is_none(),
                "{number} is out twice"
            );
            assert!(self.out.len() <= usize::from(self.prefetch));
        }
    }

    /// The connection is gone: what was out comes again.
    fn forget(&mut self) {
        self.out.clear();
    }
}

async fn run(seed: u64) {
    let rng = Rng::with_seed(seed);
    let mut options = MemoryOptions::for_tests(seed);
    options.delivery_limit = u32::MAX;
    let store = MemoryStore::new(options);
    let mut instance = 0.to_string();
    let mut broker = process(&store, &instance).await;
    let mut groups = [
        Watched::start(&broker, "one", 1).await,
        Watched::start(&broker, "two", 3).await,
        Watched::start(&broker, "three", 8).await,
    ];
    let mut published = 0;
    for step in 0..STEPS {
        match rng.below(20) {
            0..8 => {
                published += 1;
                let mut outgoing = message("t", &published.to_string());
                outgoing.key = Some(KEYS[rng.below(3) as usize].into());
                broker.publish(outgoing).await.unwrap();
            }
            8..17 => {
                let group = &mut groups[rng.below(3) as usize];
                group.receive();
                let numbers: Vec<_> = group.out.keys().copied().collect();
                if numbers.is_empty() {
                    continue;
                }
                let number = numbers[rng.below(numbers.len() as u64) as usize];
                let (incoming, settlement) = parts(group.out.remove(&number).unwrap());
                let headers = incoming.headers.clone();
                let settled = match rng.below(8) {
                    0 => {
                        settlement
                            .retry(incoming, seconds(rng.below(20)), headers)
                            .await
                    }
                    1 => {
                        group.ended.insert(number, "dead");
                        settlement.dead_letter(incoming, headers).await
                    }
                    2 => settlement.release().await,
                    _ => {
                        group.ended.insert(number, "done");
                        settlement.done().await
                    }
                };
                assert_eq!(settled.unwrap(), Settled::Yes);
            }
            17 => {
                let group = &groups[rng.below(3) as usize];
                group.reader.consumer.pause().await;
                tokio::task::yield_now().await;
                group.reader.consumer.resume().await;
            }
            18 => tokio::time::sleep(seconds(rng.below(10))).await,
            _ if rng.below(2) == 0 => {
                store.faults().disconnect(seconds(1));
                groups.iter_mut().for_each(Watched::forget);
                tokio::time::sleep(seconds(1)).await;
            }
            _ => {
                store.kill(&instance);
                instance = format!("{step}");
                broker = process(&store, &instance).await;
                for group in &mut groups {
                    group.forget();
                    group.reader =
                        read(&broker, Watched::subscription(group.group, group.prefetch)).await;
                }
            }
        }
        groups.iter_mut().for_each(Watched::receive);
        for group in &groups {
            let report = store.queues();
            let queue = report
                .iter()
                .find(|queue| queue.name.starts_with(group.group))
                .unwrap();
            assert_eq!(queue.in_flight, group.out.len());
            let all = queue.ready + queue.in_flight + queue.waiting;
            assert_eq!(
                all + group.ended.len(),
                published as usize,
                "something is lost"
            );
        }
    }
    for group in &mut groups {
        while group.ended.len() < published as usize {
            group.receive();
            match group.out.pop_first() {
                Some((number, delivery)) => {
                    group.ended.insert(number, "done");
                    delivery.settlement.done().await.unwrap();
                }
                None => {
                    let due = store.next_due().expect("what is not ended is due");
                    tokio::time::sleep_until(due).await;
                    tokio::task::yield_now().await;
                }
            }
        }
        let letters = broker.dead_letters().unwrap();
        let wanted = Watched::subscription(group.group, 1);
        let dead = letters.list(&wanted, usize::MAX).await.unwrap();
        let dead: BTreeSet<u64> = dead
            .iter()
            .map(|dead| text(dead).parse().unwrap())
            .collect();
        let expected: BTreeSet<u64> = group
            .ended
            .iter()
            .filter(|(_, how)| **how == "dead")
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(dead, expected);
    }
    store.idle(Instant::now() + seconds(1_000)).await;
    assert_eq!(store.activity(), Activity::default());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_and_bounds_and_order_hold() {
    let seeds = match std::env::var("INTERLINE_SEED") {
        Ok(seed) => vec![seed.parse().expect("INTERLINE_SEED is a number")],
        Err(_) => (1..=RUNS).collect(),
    };
    for seed in seeds {
        println!("INTERLINE_SEED={seed}");
        run(seed).await;
    }
}
