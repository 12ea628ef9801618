# Writes OUT: a C header with one raw string for each of FILES, as EMBED(name, text) entries.
set(text "/* generated from schemas/; do not edit */\n")
foreach(file ${FILES})
  get_filename_component(name ${file} NAME)
  string(REPLACE ".schema.json" "" name ${name})
  file(READ ${file} body)
  string(APPEND text "EMBED(\"${name}\", R\"SCHEMA(${body})SCHEMA\")\n")
endforeach()
file(WRITE ${OUT} "${text}")
