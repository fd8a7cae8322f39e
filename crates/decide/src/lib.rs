//! Given tables and the facts of a connection or request, says what must happen to it, and can say why.
