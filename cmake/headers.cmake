# Copies the public headers from FROM to TO. In the tree an include names its folder
# ("outbox/outbox.h", "base/err.h"); installed it is <skald/outbox.h>, <skald/base/err.h>,
# so that one -I of the prefix is enough and no name of ours lies outside skald/.
file(GLOB skald_headers ${FROM}/base/*.h)
list(FILTER skald_headers EXCLUDE REGEX "own\\.h$")
foreach(folder sql broker http outbox consumers saga)
	if(EXISTS ${FROM}/${folder}/${folder}.h)
		list(APPEND skald_headers ${FROM}/${folder}/${folder}.h)
	endif()
endforeach()

function(skald_install_header from to)
	file(READ ${from} text)
	string(REGEX REPLACE "#include \"base/([a-z_0-9]+\\.h)\"" "#include <skald/base/\\1>" text "${text}")
	string(REGEX REPLACE "#include \"([a-z]+)/([a-z]+)\\.h\"" "#include <skald/\\2.h>" text "${text}")
	file(WRITE ${to} "${text}")
	message(STATUS "Installing: ${to}")
endfunction()

skald_install_header(${FROM}/cmake/skald.h.in ${TO}/skald.h)
foreach(header ${skald_headers})
	get_filename_component(name ${header} NAME)
	if(header MATCHES "/base/[^/]+$")
		set(name base/${name})
	endif()
	skald_install_header(${header} ${TO}/${name})
endforeach()
