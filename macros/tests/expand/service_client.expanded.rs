pub trait Orders {
    fn order(
        &self,
        id: OrderId,
    ) -> impl ::core::future::Future<
        Output = Result<Option<Order>, CallError>,
    > + ::core::marker::Send;
    fn place(
        &self,
        order: &NewOrder,
        tenant: Option<&str>,
    ) -> impl ::core::future::Future<
        Output = Result<Order, CallError>,
    > + ::core::marker::Send;
}
#[doc(hidden)]
#[allow(non_snake_case, unused_imports, reason = "one name for generated code")]
use ::interline::__private::needs_feature_http as __Orders_http;
#[doc(hidden)]
#[allow(non_camel_case_types, reason = "named after the trait")]
trait __OrdersObject: ::core::marker::Send + ::core::marker::Sync {
    fn __order<'__call>(
        &'__call self,
        id: OrderId,
    ) -> __Orders_http::BoxFuture<'__call, Result<Option<Order>, CallError>>;
    fn __place<'__call>(
        &'__call self,
        order: &'__call NewOrder,
        tenant: Option<&'__call str>,
    ) -> __Orders_http::BoxFuture<'__call, Result<Order, CallError>>;
}
///The client of [`Orders`].
#[derive(::core::clone::Clone, ::core::fmt::Debug)]
pub struct OrdersClient(__Orders_http::Via<dyn __OrdersObject>);
const _: () = {
    use ::interline::__private;
    impl OrdersClient {
        /// A client that calls this implementation in place of the service.
        #[must_use]
        pub fn from_impl<__I>(implementation: __I) -> Self
        where
            __I: Orders + ::core::marker::Send + ::core::marker::Sync + 'static,
        {
            Self(__Orders_http::Via::Local(__private::Arc::new(implementation)))
        }
        /// The same client with these options, above its own, for calls over the wire.
        #[must_use]
        pub fn with(&self, options: __Orders_http::CallOptions) -> Self {
            Self(self.0.with(options))
        }
    }
    impl __Orders_http::ServiceClient for OrdersClient {
        const DESCRIPTOR: &'static __Orders_http::ClientDescriptor = &__Orders_http::ClientDescriptor::new::<
            Self,
        >(
                "Orders",
                "orders",
                &[
                    __Orders_http::MethodDescriptor::new(
                        "order",
                        __Orders_http::Verb::Get,
                        "/api/v1/orders/{id}",
                    ),
                    __Orders_http::MethodDescriptor::new(
                            "place",
                            __Orders_http::Verb::Post,
                            "/api/v1/orders",
                        )
                        .keyed(),
                ],
                __private::Location {
                    file: ::core::file!(),
                    line: ::core::line!(),
                    column: ::core::column!(),
                },
            )
            .settings(
                __Orders_http::CallSettings::UNSET
                    .timeout(::core::time::Duration::from_millis(2000u64)),
            );
        fn from_wire(wire: __Orders_http::Wire) -> Self {
            Self(__Orders_http::Via::Wire(wire))
        }
    }
    impl Orders for OrdersClient {
        async fn order(&self, id: OrderId) -> Result<Option<Order>, CallError> {
            let __wire = match &self.0 {
                __Orders_http::Via::Wire(__wire) => __wire,
                __Orders_http::Via::Local(__local) => {
                    return __OrdersObject::__order(&**__local, id).await;
                }
            };
            let __call = __wire.call(0usize);
            let __call = __call.literal("/api/v1/orders/");
            let __call = __Orders_http::path(__call, "id", &id);
            __Orders_http::send::<
                __Orders_http::Maybe<__Orders_http::Json<Order>>,
                __Orders_http::Problem,
            >(__call)
                .await
                .map_err(|__error| __Orders_http::failed::<
                    __Orders_http::Problem,
                    CallError,
                >(__error))
        }
        async fn place(
            &self,
            order: &NewOrder,
            tenant: Option<&str>,
        ) -> Result<Order, CallError> {
            let __wire = match &self.0 {
                __Orders_http::Via::Wire(__wire) => __wire,
                __Orders_http::Via::Local(__local) => {
                    return __OrdersObject::__place(&**__local, order, tenant).await;
                }
            };
            let __call = __wire.call(1usize);
            let __call = __call.literal("/api/v1/orders");
            let __call = __Orders_http::json(__call, &order);
            let __call = __Orders_http::optional_header(__call, "x-tenant", &tenant);
            __Orders_http::send::<
                __Orders_http::Json<Order>,
                __Orders_http::Problem,
            >(__call)
                .await
                .map_err(|__error| __Orders_http::failed::<
                    __Orders_http::Problem,
                    CallError,
                >(__error))
        }
    }
    impl<__I> __OrdersObject for __I
    where
        __I: Orders + ::core::marker::Send + ::core::marker::Sync,
    {
        fn __order<'__call>(
            &'__call self,
            id: OrderId,
        ) -> __Orders_http::BoxFuture<'__call, Result<Option<Order>, CallError>> {
            ::std::boxed::Box::pin(<__I as Orders>::order(self, id))
        }
        fn __place<'__call>(
            &'__call self,
            order: &'__call NewOrder,
            tenant: Option<&'__call str>,
        ) -> __Orders_http::BoxFuture<'__call, Result<Order, CallError>> {
            ::std::boxed::Box::pin(<__I as Orders>::place(self, order, tenant))
        }
    }
    __private::inventory::submit! {
        __private::Registration::Client(< OrdersClient as __Orders_http::ServiceClient >
        ::DESCRIPTOR,)
    }
};
