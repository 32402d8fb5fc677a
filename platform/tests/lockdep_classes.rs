//! More lock classes than there are numbers. A binary of its own: numbers are the
//! program's.

mod lockdep_machine;

use std::thread;

use lockdep_machine::{SPIN, Thread};
use platform::{
    lock::LockClass,
    lockdep::{Checker, ClassId, Kind, MAX_CLASSES},
};

fn new_class(index: usize) -> &'static LockClass {
    let name = Box::leak(format!("class {index}").into_boxed_str());
    Box::leak(Box::new(LockClass::new(name, 1, true)))
}

#[test]
fn more_classes_than_numbers() {
    let checker = Box::new(Checker::new());

    // Several threads meet new classes at the same time: each gets one number.
    let classes: Vec<_> = (0..MAX_CLASSES + 5).map(new_class).collect();
    let half = MAX_CLASSES / 2;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut thread = Thread::new(&checker);
                for (index, class) in classes[..half].iter().enumerate() {
                    thread.take_as(class, index, SPIN);
                    thread.give_lock(class, index);
                }
                thread.is_clean();
            });
        }
    });
    assert_eq!(ClassId::all().count(), half);
    for (id, class) in ClassId::all() {
        assert_eq!(class.id(), Some(id.number().into()));
    }

    // Each under the one before: edges in the last word of a row, too, and a long path.
    let mut thread = Thread::new(&checker);
    for pair in classes[..MAX_CLASSES].windows(2) {
        for (index, class) in pair.iter().enumerate() {
            thread.take_as(class, index, SPIN);
        }
        for (index, class) in pair.iter().enumerate() {
            thread.give_lock(class, index);
        }
    }
    thread.is_clean();
    assert_eq!(checker.statistics().classes, MAX_CLASSES);
    assert_eq!(checker.statistics().edges, MAX_CLASSES - 1);
    thread.take(classes[MAX_CLASSES - 1]);
    let wanted = thread.take(classes[0]);
    let text = thread.found_one(Kind::Cycle, &[&wanted, &"cycle of 255 classes"]);
    assert_eq!(text.matches(" taken at ").count(), MAX_CLASSES - 1);

    // No number left: said once, and the locks are not compared with others.
    thread.take(classes[MAX_CLASSES]);
    thread.found_one(Kind::TooManyClasses, &[&"class 255"]);
    for class in &classes[MAX_CLASSES + 1..] {
        thread.take(class);
    }
    for class in &classes[MAX_CLASSES..] {
        thread.give(class);
    }
    thread.is_clean();
    assert_eq!(thread.held.depth(), 2);
}
