# cmake -DOUT=f.c -DMIGRATIONS=a;b -DFUNCTIONS=c;d -DPUBLICATION=e -P embed.cmake
# Writes the SQL files as arrays of lines: C compilers need take only short literals.

# No file(STRINGS): it drops empty lines and mangles brackets.
function(embed_lines path symbol)
	file(READ ${path} text)
	string(REPLACE "\\" "\\\\" text "${text}")
	string(REPLACE "\"" "\\\"" text "${text}")
	string(REPLACE "?" "\\?" text "${text}") # no trigraphs
	string(REPLACE "\n" "\\n\",\n\t\"" text "${text}")
	file(APPEND ${OUT} "static const char *const ${symbol}[] = {\n\t\"${text}\",\n\tNULL\n};\n\n")
endfunction()

function(embed_table files prefix table)
	set(rows "")
	foreach(path ${files})
		get_filename_component(name ${path} NAME)
		string(MAKE_C_IDENTIFIER "${prefix}_${name}" symbol)
		embed_lines(${path} ${symbol})
		file(SHA256 ${path} hash)
		string(APPEND rows "\t{ \"${name}\",\n\t\t\"${hash}\",\n\t\t${symbol} },\n")
	endforeach()
	file(APPEND ${OUT} "const struct skald__sql_file ${table}[] = {\n${rows}\t{ NULL, NULL, NULL }\n};\n\n")
endfunction()

file(WRITE ${OUT} "/* Generated from sql/ by embed.cmake. */\n#include \"sql/own.h\"\n\n")
embed_table("${MIGRATIONS}" migration skald__migrations)
embed_table("${FUNCTIONS}" function skald__functions)
embed_table("${PUBLICATION}" publication skald__publication)
