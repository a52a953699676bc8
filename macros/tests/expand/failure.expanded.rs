const _: () = {
    use ::interline::__private;
    impl __private::FailureType for ChargeError {}
    struct __Delays;
    impl __private::DelayField<0usize> for __Delays {
        type Field = Duration;
    }
    impl __private::Failure for ChargeError {
        fn fate(&self) -> __private::Fate {
            match self {
                Self::Network { .. } => {
                    __private::Fate::Retry {
                        after: ::core::option::Option::None,
                    }
                }
                Self::Busy { wait: __after, .. } => {
                    __private::retry_after_field::<__Delays, 0usize>(__after)
                }
                Self::CardRefused { .. } => __private::Fate::DeadLetter,
            }
        }
        fn error_type(&self) -> __private::Cow<'static, ::core::primitive::str> {
            __private::Cow::Borrowed(
                match self {
                    Self::Network { .. } => "ChargeError::Network",
                    Self::Busy { .. } => "ChargeError::Busy",
                    Self::CardRefused { .. } => "ChargeError::CardRefused",
                },
            )
        }
        fn text(&self) -> __private::String {
            __private::failure_text(self)
        }
    }
};
