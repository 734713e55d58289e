//! Panics as findings: caught, with their place.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `act`; the text and place of its panic, if it did.
pub fn caught(act: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let text = format!("panic: {info}").replace('\n', " ");
            LAST.with(|last| *last.borrow_mut() = Some(text));
        }));
    });
    LAST.with(|last| *last.borrow_mut() = None);
    let outcome = panic::catch_unwind(AssertUnwindSafe(act));
    outcome.err().map(|_| LAST.with(|last| last.borrow_mut().take()).unwrap_or_else(|| "panic".into()))
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_told_with_its_place() {
        assert_eq!(caught(|| {}), None);
        let told = caught(|| panic!("two\nlines")).expect("it panics");
        assert!(told.starts_with("panic: panicked at ") && told.contains("panics.rs:"), "{told}");
        assert!(told.ends_with("two lines"), "{told}");
        // And the one before is forgotten.
        assert_eq!(caught(|| {}), None);
    }
}
