# cmake --install: programs, libraries, headers, man pages, unit, pkg-config. (sql/ installs its own.)
install(TARGETS skald skaldd RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS skald_static skald_shared
	ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

configure_file(cmake/skald.pc.in skald.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/skald.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

configure_file(daemon/skaldd.service.in skaldd.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/skaldd.service DESTINATION lib/systemd/system)

install(FILES docs/man/skald.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES docs/man/skald.conf.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5)
install(FILES docs/man/skaldd.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)

# skald/skald.h, skald/<folder>.h, skald/base/*.h; includes rewritten (headers.cmake says how)
install(CODE "set(FROM ${CMAKE_SOURCE_DIR})
set(TO \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/skald\")
include(${CMAKE_SOURCE_DIR}/cmake/headers.cmake)")
