//! The workers as scripts see them: one object for each, which stays the same for as long as the
//! worker lives, with `load` brought up to date before each call.

use std::cell::RefCell;
use std::collections::HashMap;

use policy_common::Rendezvous;
use sidetrack_policy::{Worker, WorkerId};

use crate::js::{Name, Result, Value};

thread_local! {
    static ROSTER: RefCell<Roster> = RefCell::default();
    static LOAD: Name = Name::new("load");
    static ID: Name = Name::new("id");
    static FIELDS: [Name; 5] = ["id", "name", "weight", "draining", "labels"].map(Name::new);
}

/// The workers there are.
#[derive(Debug, Default)]
struct Roster {
    /// What `balance` is given: an array of the objects.
    array: Value,
    workers: Vec<Worker>,
    objects: Vec<Value>,
    /// The objects' addresses and places, in the order of addresses.
    places: Vec<(usize, usize)>,
    /// As the objects have them.
    loads: Vec<u32>,
    rendezvous: Rendezvous,
    /// Where the least loaded one is looked for first, so that equals get their turns.
    start: usize,
}

/// Takes the workers that may be chosen from now on.
pub fn follow(workers: &[Worker]) -> Result<()> {
    let old = ROSTER.take();
    let known: HashMap<_, _> =
        old.workers.iter().zip(&old.objects).map(|(w, object)| (w.id, (w, object))).collect();
    let mut objects = Vec::with_capacity(workers.len());
    for worker in workers {
        let object = match known.get(&worker.id) {
            Some((before, object)) => {
                if *before != worker {
                    describe(object, worker)?;
                }
                (*object).clone()
            }
            None => {
                let new = Value::object()?;
                describe(&new, worker)?;
                new
            }
        };
        objects.push(object);
    }
    LOAD.with(|load| objects.iter().try_for_each(|object| object.define(load, 0_u32.into())))?;
    let mut places: Vec<_> =
        objects.iter().enumerate().map(|(place, object)| (object.address(), place)).collect();
    places.sort_unstable();
    let array = Value::array(&objects)?;
    array.freeze()?;
    let next = old.workers.get(old.start).map(|worker| worker.id);
    let start = workers.iter().position(|worker| Some(worker.id) == next).unwrap_or(0);
    ROSTER.set(Roster {
        array,
        workers: workers.to_vec(),
        objects,
        places,
        loads: vec![0; workers.len()],
        rendezvous: Rendezvous::new(workers),
        start,
    });
    Ok(())
}

fn describe(object: &Value, worker: &Worker) -> Result<()> {
    let labels = Value::object_of(None)?;
    // Of several the first counts, and is written last.
    for (key, value) in worker.labels.iter().rev() {
        labels.define(&Name::new(key), Value::text(value)?)?;
    }
    labels.freeze()?;
    FIELDS.with(|[id, name, weight, draining, labels_name]| {
        object.define(id, worker.id.into())?;
        object.define(name, Value::text(&worker.name)?)?;
        object.define(weight, worker.weight.into())?;
        object.define(draining, worker.draining.into())?;
        object.define(labels_name, labels)
    })
}

/// Brings the loads up to date, and returns the array of workers.
pub fn loaded(loads: &[u32]) -> Result<Value> {
    ROSTER.with_borrow_mut(|roster| {
        LOAD.with(|name| {
            // From one call to the next hardly any of them changes.
            for ((object, known), &load) in roster.objects.iter().zip(&mut roster.loads).zip(loads) {
                if *known != load {
                    *known = load;
                    object.define(name, load.into())?;
                }
            }
            Ok(roster.array.clone())
        })
    })
}

/// The worker that an object stands for: one of ours, or anything with the `id` of a worker.
pub fn id_of(object: &Value) -> Result<Option<WorkerId>> {
    let known = ROSTER.with_borrow(|roster| roster.place(object).map(|place| roster.workers[place].id));
    match known {
        Some(id) => Ok(Some(id)),
        None => ID.with(|id| Ok(object.get(id)?.whole())),
    }
}

pub fn named(name: &str) -> Option<WorkerId> {
    ROSTER.with_borrow(|roster| {
        roster.workers.iter().find(|worker| worker.name == name).map(|worker| worker.id)
    })
}

/// The object of a worker, if it is there.
pub fn object(id: WorkerId) -> Option<Value> {
    ROSTER.with_borrow(|roster| {
        let place = roster.workers.iter().position(|worker| worker.id == id)?;
        Some(roster.objects[place].clone())
    })
}

/// Of some workers, the one with the lowest load that takes new connections; equals in turn.
pub fn least_loaded(some: &Value) -> Result<Option<Value>> {
    let places = chosen(some)?;
    Ok(ROSTER.with_borrow_mut(|roster| {
        let count = roster.workers.len();
        let least = |places: &mut dyn Iterator<Item = usize>| {
            places
                .filter(|&place| !roster.workers[place].draining)
                .min_by_key(|&place| (roster.loads[place], (place + count - roster.start) % count))
        };
        let place = match &places {
            None => least(&mut (0..count)),
            Some(places) => least(&mut places.iter().copied()),
        }?;
        roster.start = (place + 1) % count;
        Some(roster.objects[place].clone())
    }))
}

/// Of some workers, the one that a text belongs to.
pub fn by_hash(some: &Value, text: &str) -> Result<Option<Value>> {
    let places = chosen(some)?;
    let key = sidetrack_policy::request::hash_session(text);
    let id = ROSTER.with_borrow(|roster| match &places {
        None => roster.rendezvous.pick(key),
        Some(places) => {
            let some: Vec<_> = places.iter().map(|&place| roster.workers[place].clone()).collect();
            Rendezvous::new(&some).pick(key)
        }
    });
    Ok(id.and_then(object))
}

/// The places of the workers in an array; none when it is the array of all.
fn chosen(some: &Value) -> Result<Option<Vec<usize>>> {
    if ROSTER.with_borrow(|roster| roster.array.address() == some.address()) {
        return Ok(None);
    }
    let Some(length) = some.length()? else {
        return Err(crate::js::type_error("expected an array of workers"));
    };
    let mut places = Vec::with_capacity(length.min(1024) as usize);
    for element in 0..length {
        let element = some.at(element)?;
        // One that is gone by now is passed over.
        places.extend(ROSTER.with_borrow(|roster| roster.place(&element)));
    }
    Ok(Some(places))
}

impl Roster {
    fn place(&self, object: &Value) -> Option<usize> {
        let address = object.address();
        let found = self.places.binary_search_by_key(&address, |&(address, _)| address).ok()?;
        Some(self.places[found].1)
    }
}
